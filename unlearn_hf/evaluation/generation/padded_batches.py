"""`generate` of transformers as a backend, on batches that are padded on the left."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from unlearn_hf.data.collator import collate
from unlearn_hf.evaluation.generation.prompts import GeneratedText, GenerationSettings, end_tokens
from unlearn_hf.models.loading import pad_token_id
from unlearn_hf.models.wrappers import causal_model


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
    config = transformers_settings(model, tokenizer, settings, max(1, budget))
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
    texts = list(decoded_rows(output[:, longest:].tolist(), tokenizer, end_tokens(tokenizer, model)))
    count = settings.samples
    return texts if count == 1 else [texts[start : start + count] for start in range(0, len(texts), count)]


def transformers_settings(
    model: Any, tokenizer: PreTrainedTokenizerBase, settings: GenerationSettings, budget: int
) -> GenerationConfig:
    """Our settings in the words of transformers, with a budget of `budget` tokens."""
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
    """Of a batch: by its keys, since samples of one prompt may come one by one and are to differ."""
    digest = hashlib.sha256(repr((seed, [prompt.key for prompt in prompts])).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def decoded_rows(rows: Iterable[list[int]], tokenizer: PreTrainedTokenizerBase, ends: list[int]) -> Iterator[str]:
    """Texts of rows of tokens, each up to the first of `ends`, without special tokens."""
    for row in rows:
        stop = next((index for index, token in enumerate(row) if token in ends), len(row))
        yield str(tokenizer.decode(row[:stop], skip_special_tokens=True))
