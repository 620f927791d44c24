"""One question to one model: the greedy answer, sampled ones, and the probability of a given answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from unlearn_hf.data.encoding import Template, encode_pair, encode_prompt
from unlearn_hf.data.labels import IGNORE_INDEX
from unlearn_hf.data.templates import Prompt
from unlearn_hf.evaluation.generation import GeneratedText, GenerationSettings, generate
from unlearn_hf.likelihood.answers import answer_likelihood

_LONGEST = 2**20


@dataclass(frozen=True)
class AskingSettings:
    """How to ask.

    Attributes:
        samples: sampled answers beside the greedy one.
        temperature: of samples.
        seed: of samples.
        max_new_tokens: most tokens of an answer.
        open_end: whether the end of the given answer does not count, because texts go on.
    """

    samples: int = 2
    temperature: float = 1.0
    seed: int = 0
    max_new_tokens: int = 64
    open_end: bool = False


@dataclass(frozen=True)
class Answers:
    """What a model says.

    Attributes:
        greedy: the most likely continuation, token by token.
        sampled: drawn from the model's distribution.
        probability: of the given answer, the geometric mean over its tokens, its end among them.
        whole_probability: of the whole answer: the product over its tokens.
    """

    greedy: str
    sampled: tuple[str, ...]
    probability: float | None = None
    whole_probability: float | None = None


@torch.no_grad()
def ask(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    question: Prompt,
    answer: str | None = None,
    settings: AskingSettings | None = None,
) -> Answers:
    """Put a question to a model.

    Args:
        model: a causal language model in evaluation mode.
        tokenizer: its tokenizer.
        template: how questions look; `completion` for the beginning of a raw text.
        question: the question, the conversation up to the answer, or that beginning.
        answer: what the probability is wanted of, or `None`.
        settings: how to ask.

    Raises:
        ValueError: for turns that the template does not take.
    """
    settings = settings or AskingSettings()
    prompt = encode_prompt(tokenizer, template, question)
    device = next(model.parameters()).device

    def said(name: str, **options: Any) -> Any:
        wanted = GeneratedText(name, list(prompt), GenerationSettings(settings.max_new_tokens, **options))
        return next(generate("transformers", model, tokenizer, [wanted], device))

    sampled: list[str] = []
    if settings.samples:
        found = said("sampled", samples=settings.samples, temperature=settings.temperature, seed=settings.seed)
        sampled = found if isinstance(found, list) else [found]
    greedy = said("greedy")
    if answer is None:
        return Answers(greedy, tuple(sampled))
    row = encode_pair(tokenizer, template, question, answer, _LONGEST)
    if settings.open_end and row["input_ids"][-1] == tokenizer.eos_token_id:
        row["labels"][-1] = IGNORE_INDEX
    batch = {name: torch.tensor([values], device=device) for name, values in row.items()}
    likelihood = answer_likelihood(model, batch)
    nll = float(likelihood.nll)
    return Answers(greedy, tuple(sampled), math.exp(-nll / int(likelihood.tokens)), math.exp(-nll))
