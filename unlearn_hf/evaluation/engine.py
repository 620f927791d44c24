"""The engine: gathers what metrics need of a model, runs each pass once, and fills one per-sample table."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from unlearn_hf.data.encoding import encode_pair, encode_prompt
from unlearn_hf.data.templates import ChatTemplate, PromptTemplate, resolve_template
from unlearn_hf.evaluation.generation import GeneratedText, GenerationSettings, generate_batch
from unlearn_hf.evaluation.packing import can_pack, group_texts, score_groups
from unlearn_hf.evaluation.passes import PartialResults, evaluating, run_pass
from unlearn_hf.evaluation.scoring import ScoredText
from unlearn_hf.evaluation.text import rouge_scores
from unlearn_hf.loading import pad_token_id

_FIELDS = {"answer": "answer", "paraphrase": "paraphrased_answer", "perturbed": "perturbed_answer"}
_TOKENS, _CPU_TOKENS = 8192, 512


@dataclass(frozen=True)
class SplitRequest:
    """What metrics need of one set of question-answer rows.

    Attributes:
        split: name in the per-sample table.
        rows: rows with `question`, `answer` and, where scored, `paraphrased_answer` and `perturbed_answer`.
        scored: which of `answer`, `paraphrase`, `perturbed` get likelihoods.
        details: whether answers get token-level statistics (extraction, memorisation, membership scores).
        generated: whether the question is answered by greedy generation.
    """

    split: str
    rows: Sequence[Mapping[str, Any]]
    scored: tuple[str, ...] = ("answer",)
    details: bool = False
    generated: bool = True


@dataclass
class Engine:
    """Runs a model over split requests.

    Attributes:
        template: prompt template, by name.
        batch_size: most sequences per forward pass.
        token_budget: most padded tokens per forward pass of scoring; by default 8192, and 512 on a CPU, where more
            at once takes longer and more memory.
        max_length: tokens per scored sequence.
        generation: how to generate.
        packed: whether the answers to one question are scored in one row that computes the question once, where the
            model can do that.
        seconds: of each pass of the last run.
    """

    template: str = "auto"
    batch_size: int = 32
    token_budget: int | None = None
    max_length: int = 512
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    packed: bool = True
    seconds: dict[str, float] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """What results depend on, JSON-ready (batching does not change them)."""
        return {"template": self.template, "max_length": self.max_length, "generation": asdict(self.generation)}

    def run(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[SplitRequest],
        *,
        accelerator: Accelerator | None = None,
        partial: PartialResults | None = None,
    ) -> pd.DataFrame:
        """Fill the per-sample table.

        Args:
            model: a causal language model; its mode, gradients and settings stay as they are.
            tokenizer: its tokenizer, not altered.
            requests: what is needed.
            accelerator: shares the work out over ranks; every rank gets the whole table.
            partial: results of an interrupted run to continue.

        Returns:
            One row per (split, index).

        Raises:
            ValueError: when a likelihood is not finite, naming split, row and field.
        """
        template = resolve_template(tokenizer, self.template)
        partial = partial or PartialResults(None, "")
        device = accelerator.device if accelerator is not None else next(model.parameters()).device
        texts = [text for request in requests for text in self.texts(request, tokenizer)]
        prompts = [prompt for request in requests for prompt in self._prompts(request, tokenizer, template)]
        pad = pad_token_id(tokenizer)
        common: dict[str, Any] = {
            "batch_size": self.batch_size,
            "accelerator": accelerator,
            "partial": partial,
        }
        with evaluating(model):
            start = time.perf_counter()
            groups = group_texts(texts, self.packed)
            pending = {group.key for group in groups} - partial.read().keys()
            if self.packed and pending and not can_pack(model, groups, pad, device):
                groups = group_texts(texts, packed=False)
            found = run_pass(
                "likelihood",
                groups,
                lambda batch: score_groups(model, batch, pad, device),
                token_budget=self.token_budget or (_CPU_TOKENS if device.type == "cpu" else _TOKENS),
                description="Likelihoods",
                **common,
            )
            scores = {key: score for group in found.values() for key, score in group.items()}
            middle = time.perf_counter()
            generations = run_pass(
                "generation",
                prompts,
                lambda batch: generate_batch(model, tokenizer, batch, self.generation, device),
                token_budget=self.token_budget or _TOKENS,
                description="Generations",
                **common,
            )
            self.seconds = {"likelihood": middle - start, "generation": time.perf_counter() - middle}
        _check_finite(scores)
        table = [
            _table_row(request, index, row, scores, generations)
            for request in requests
            for index, row in enumerate(request.rows)
        ]
        return pd.DataFrame(table)

    def texts(self, request: SplitRequest, tokenizer: PreTrainedTokenizerBase) -> list[ScoredText]:
        """What is scored for a request, in the order of its rows; keys are split/row/field/choice."""
        template = resolve_template(tokenizer, self.template)
        texts = []
        for index, row in enumerate(request.rows):
            for name in request.scored:
                answers = row[_FIELDS[name]]
                for choice, answer in enumerate([answers] if isinstance(answers, str) else answers):
                    encoded = encode_pair(tokenizer, template, row["question"], answer, self.max_length)
                    details = request.details and name == "answer"
                    key = _key(request.split, index, name, choice)
                    texts.append(ScoredText(key, encoded["input_ids"], encoded["labels"], answer, details))
        return texts

    @staticmethod
    def _prompts(
        request: SplitRequest, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate | ChatTemplate
    ) -> list[GeneratedText]:
        if not request.generated:
            return []
        return [
            GeneratedText(
                _key(request.split, index, "generation"), encode_prompt(tokenizer, template, row["question"])
            )
            for index, row in enumerate(request.rows)
        ]


def settings_fingerprint(*parts: Any) -> str:
    """Hash JSON-ready values: of a model, of data, of settings."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _key(split: str, index: int, name: str, choice: int = 0) -> str:
    return f"{split}/{index}/{name}/{choice}"


def _table_row(
    request: SplitRequest,
    index: int,
    row: Mapping[str, Any],
    scores: Mapping[str, Any],
    generations: Mapping[str, Any],
) -> dict[str, Any]:
    result: dict[str, Any] = {"split": request.split, "index": index}
    for name in request.scored:
        many = not isinstance(row[_FIELDS[name]], str)
        found = [scores[_key(request.split, index, name, i)] for i in range(len(row[_FIELDS[name]]) if many else 1)]
        means = [score["nll"] / score["tokens"] for score in found]
        tokens = [score["tokens"] for score in found]
        result[f"{name}_mean_nll"], result[f"{name}_tokens"] = (means, tokens) if many else (means[0], tokens[0])
        if name == "answer":
            result |= {key: value for key, value in found[0].items() if key not in ("nll", "tokens")}
    if request.generated:
        generation, reference = generations[_key(request.split, index, "generation")], row["answer"]
        result |= {"prompt": row["question"], "generation": generation, "reference_text": reference}
        for name, rouge_type in (("rouge_1_recall", "rouge1"), ("rouge_l_recall", "rougeL")):
            result[name] = rouge_scores([generation], [reference], rouge_type)[0]
    return result


def _check_finite(scores: Mapping[str, Any]) -> None:
    broken = [key for key, value in scores.items() if not math.isfinite(value["nll"])]
    if broken:
        raise ValueError(
            f"the model gives no finite likelihood for {len(broken)} of {len(scores)} texts, first {broken[0]!r} "
            "(split/row/field): its weights have probably diverged; evaluate an earlier checkpoint."
        )
