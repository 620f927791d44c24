"""The generation pass: continuations that leave model and tokenizer as they were, by one of several backends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from unlearn_hf.common.checks import check_count
from unlearn_hf.data.collator import collate
from unlearn_hf.evaluation.decoding import Decoder, Sampling, Text, shared_beginning
from unlearn_hf.models.loading import pad_token_id
from unlearn_hf.models.wrappers import causal_model

_CACHE_BYTES = {"cpu": 2**30, "cuda": 2**33}
_MOST_SLOTS = 64


@dataclass(frozen=True)
class GenerationSettings:
    """How to continue.

    Attributes:
        max_new_tokens: most tokens of a continuation.
        max_length: TOFU's official rule instead: prompt and continuation together, the prompt counted with the padding
            of its batch, so that the budget depends on the batch.
        samples: continuations of each prompt; more than one needs a temperature.
        temperature: 0 is greedy decoding; 1 draws from the model's own distribution.
        top_p: share of probability that is drawn from, the most likely tokens first.
        seed: of what is drawn, together with the prompt's key and the number of the sample, so that neither batches
            nor ranks change a sample.
        stops: texts at which a continuation may end, because nothing after them is used.
    """

    max_new_tokens: int = 200
    max_length: int | None = None
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stops: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse continuations without tokens and samples that would all be the same.

        Raises:
            ValueError: naming the field.
        """
        check_count("max_new_tokens", self.max_new_tokens)
        check_count("samples", self.samples)
        if not self.temperature >= 0:
            raise ValueError(f"temperature: {self.temperature} is negative; give 0 for greedy decoding, or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: {self.top_p} is not in (0, 1]; 1 draws from all tokens.")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples: {self.samples} greedy continuations are all the same; give a temperature, such as 1."
            )


@dataclass(frozen=True)
class GeneratedText:
    """A prompt to continue.

    Attributes:
        key: unique name.
        input_ids: the prompt.
        settings: how to continue it.
        guess: tokens that may come, such as the answer; they cost one pass where they do not, and save many where
            they do, and never change the text.
    """

    key: str
    input_ids: list[int]
    settings: GenerationSettings = GenerationSettings()
    guess: tuple[int, ...] = field(default=(), repr=False)

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.input_ids)


def end_tokens(tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> list[int]:
    """Tokens that end a continuation: the tokenizer's, and those the model's generation settings name."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return sorted({int(token) for token in [tokenizer.eos_token_id, *listed] if token is not None})


def choose_backend(name: str, model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[GeneratedText],
                   device: torch.device, sharded: bool = False) -> str:  # fmt: skip
    """The backend that is used.

    Args:
        name: one of `checks.GENERATION_BACKENDS`. `auto` takes `slots` on a CPU, where it wins, unless the model's
            architecture does not agree with it on a trial; `transformers` elsewhere.
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: what is continued; one of them is the trial.
        device: of the model.
        sharded: whether ranks hold parts of the model.

    Raises:
        ValueError: when what is asked for cannot be had.
    """
    if name == "transformers" or not prompts or (name == "auto" and (sharded or device.type != "cpu")):
        return "transformers"
    reason = "the model is sharded" if sharded else None
    if name in ("vllm", "transformers_continuous"):
        if reason is None and prompts[0].settings.max_length is not None:
            reason = "it has no padding, which protocol 'official' counts"
        if reason is None and name != "vllm" and getattr(model.config, "attn_logit_softcapping", None):
            reason = "its attention leaves out soft caps (attn_logit_softcapping)"
        if reason is not None:
            raise ValueError(f"generation_backend: {name!r} is not possible, {reason}; use 'auto'.")
        return name
    if reason is None and getattr(model.config, "_attn_implementation", None) not in ("sdpa", "eager"):
        reason = "its attention is neither sdpa nor eager"
    if reason is None:
        half = torch.is_autocast_enabled(device.type) or next(model.parameters()).dtype != torch.float32
        shortest = min(prompts, key=lambda prompt: prompt.length)
        if not Decoder(model, device, (), slots=1).agrees(shortest.input_ids, half):
            reason = f"{type(causal_model(model) or model).__name__} gives other likelihoods with it"
    if reason is None:
        return "slots"
    if name == "slots":
        raise ValueError(f"generation_backend: 'slots' is not possible, {reason}; use 'transformers'.")
    return "transformers"


def generate(
    backend: str,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[GeneratedText],
    device: torch.device,
    *,
    batch_size: int = 16,
    sharded: bool = False,
) -> Iterator[Any]:
    """Continue prompts, whatever the model's own sampling settings say.

    Args:
        backend: what `choose_backend` gave.
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: what to continue, all with the same settings.
        device: of the model.
        batch_size: prompts per batch of `transformers`, and those whose padding counts under `max_length`.
        sharded: whether every rank must go on until the last one is done.

    Returns:
        For each prompt, in order and as they are done, its continuation up to the end-of-sequence token without
        special tokens; a list of them for several samples.
    """
    if not prompts:
        return iter(())
    settings = prompts[0].settings
    if backend == "vllm":
        from unlearn_hf.evaluation.vllm_generation import generate_by_vllm

        return generate_by_vllm(model, tokenizer, prompts, settings)
    if backend == "slots":
        return _generate_in_slots(model, tokenizer, prompts, settings, device, batch_size)
    if backend == "transformers_continuous":
        from unlearn_hf.evaluation.continuous_generation import continuous_tokens

        config = _transformers_settings(model, tokenizer, settings, settings.max_new_tokens)
        rows = continuous_tokens(model, [prompt.input_ids for prompt in prompts], config, device)
        return _decoded(rows, tokenizer, end_tokens(tokenizer, model))
    batches = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    return (text for batch in batches for text in generate_batch(model, tokenizer, batch, settings, device, sharded))


def _generate_in_slots(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[GeneratedText],
    settings: GenerationSettings,
    device: torch.device,
    batch_size: int,
) -> Iterator[Any]:
    shared = shared_beginning([prompt.input_ids for prompt in prompts])
    texts = []
    for index, prompt in enumerate(prompts):
        budget = settings.max_new_tokens
        if settings.max_length is not None:
            first = index - index % batch_size
            budget = settings.max_length - max(each.length for each in prompts[first : first + batch_size])
        texts += [
            Text(
                list(prompt.input_ids),
                max(1, budget),
                guess=list(prompt.guess),
                seed=f"{settings.seed}/{prompt.key}/{sample}",
                # Samples of a prompt share all of it; else all prompts share what they begin with.
                shared=prompt.length - 1 if settings.samples > 1 else shared,
            )
            for sample in range(settings.samples)
        ]
    decoder = Decoder(
        model,
        device,
        end_tokens(tokenizer, model),
        _slots(model, max(len(text.prompt) + text.budget for text in texts), device),
        Sampling(settings.temperature, settings.top_p),
        _stopper(tokenizer, settings.stops),
    )
    decoded = (str(tokenizer.decode(text.generated, skip_special_tokens=True)) for text in decoder.run(texts))
    if settings.samples == 1:
        yield from decoded
        return
    for _, group in groupby(enumerate(decoded), key=lambda pair: pair[0] // settings.samples):
        yield [text for _, text in group]


def _slots(model: Any, longest: int, device: torch.device) -> int:
    """Texts whose keys and values fit into the memory set aside for them; more of them share one pass of weights."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", 1)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_per_token = 2 * config.num_hidden_layers * heads * width * next(model.parameters()).element_size()
    fitting = _CACHE_BYTES.get(device.type, _CACHE_BYTES["cuda"]) // (bytes_per_token * longest)
    return max(1, min(_MOST_SLOTS, fitting))


def _stopper(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> Callable[[list[int]], bool] | None:
    if not stops:
        return None
    # Every token has a byte at least, so a stop that has just come lies within that many.
    reach = max(len(stop.encode()) for stop in stops) + 4

    def stop(tokens: list[int]) -> bool:
        tail = str(tokenizer.decode(tokens[-reach:]))
        return any(each in tail for each in stops)

    return stop


def generate_batch(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[GeneratedText],
    settings: GenerationSettings,
    device: torch.device,
    sharded: bool = False,
) -> list[Any]:
    """Continue prompts in one padded batch by `generate` of transformers.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: what to continue.
        settings: of all of them.
        device: of the model.
        sharded: whether every rank must go on until the last one is done.

    Returns:
        As `generate`.
    """
    pad = pad_token_id(tokenizer)
    batch = collate([{"input_ids": prompt.input_ids} for prompt in prompts], pad, padding_side="left")
    longest = batch["input_ids"].shape[1]
    budget = settings.max_new_tokens if settings.max_length is None else settings.max_length - longest
    config = _transformers_settings(model, tokenizer, settings, max(1, budget))
    # generate() fills gaps from the model's own settings, sampling included: of the model itself and of its wrapper.
    holders: list[Any] = [
        each for each in (model, causal_model(model)) if getattr(each, "generation_config", None) is not None
    ]
    own = [each.generation_config for each in holders]
    for each in holders:
        each.generation_config = config
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(_seed_of(settings.seed, prompts))
            output = model.generate(
                input_ids=batch["input_ids"].to(device),
                attention_mask=batch["attention_mask"].to(device),
                generation_config=config,
                synced_gpus=sharded,
            )
    finally:
        for each, settings_before in zip(holders, own, strict=True):
            each.generation_config = settings_before
    texts = list(_decoded(output[:, longest:].tolist(), tokenizer, end_tokens(tokenizer, model)))
    count = settings.samples
    return texts if count == 1 else [texts[start : start + count] for start in range(0, len(texts), count)]


def _transformers_settings(
    model: Any, tokenizer: PreTrainedTokenizerBase, settings: GenerationSettings, budget: int
) -> GenerationConfig:
    drawn = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0} if settings.temperature else {}
    return GenerationConfig(
        do_sample=bool(drawn),
        num_beams=1,
        num_return_sequences=settings.samples,
        use_cache=True,
        max_new_tokens=budget,
        pad_token_id=pad_token_id(tokenizer),
        eos_token_id=end_tokens(tokenizer, model) or None,
        bos_token_id=tokenizer.bos_token_id,
        **drawn,
    )


def _seed_of(seed: int, prompts: Sequence[GeneratedText]) -> int:
    return (seed * 1_000_003 + sum(sum(prompt.input_ids) for prompt in prompts)) % 2**63


def _decoded(rows: Iterable[list[int]], tokenizer: PreTrainedTokenizerBase, ends: list[int]) -> Iterator[str]:
    for row in rows:
        stop = next((index for index, token in enumerate(row) if token in ends), len(row))
        yield str(tokenizer.decode(row[:stop], skip_special_tokens=True))
