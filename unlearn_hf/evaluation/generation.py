"""The generation pass: batched greedy continuations that leave model and tokenizer as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from unlearn_hf.common.checks import check_count
from unlearn_hf.data.collator import collate
from unlearn_hf.models.loading import pad_token_id
from unlearn_hf.models.wrappers import causal_model


@dataclass(frozen=True)
class GenerationSettings:
    """How to continue.

    Attributes:
        max_new_tokens: most tokens of a continuation.
        max_length: TOFU's official rule instead: prompt and continuation together, the prompt counted with the padding
            of its batch, so that the budget depends on the batch.
    """

    max_new_tokens: int = 200
    max_length: int | None = None

    def __post_init__(self) -> None:
        """Refuse a continuation without tokens."""
        check_count("max_new_tokens", self.max_new_tokens)


@dataclass(frozen=True)
class GeneratedText:
    """A prompt to continue.

    Attributes:
        key: unique name.
        input_ids: the prompt.
        settings: how to continue it.
    """

    key: str
    input_ids: list[int]
    settings: GenerationSettings = GenerationSettings()

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.input_ids)


def end_tokens(tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> list[int]:
    """Tokens that end a continuation: the tokenizer's, and those the model's generation settings name."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return sorted({int(token) for token in [tokenizer.eos_token_id, *listed] if token is not None})


def generate_batch(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[GeneratedText],
    settings: GenerationSettings,
    device: torch.device,
    sharded: bool = False,
) -> list[str]:
    """Continue prompts greedily, whatever the model's own sampling settings say.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: what to continue.
        settings: of all of them.
        device: of the model.
        sharded: whether every rank must go on until the last one is done.

    Returns:
        Continuations up to the end-of-sequence token, special tokens removed.
    """
    pad = pad_token_id(tokenizer)
    batch = collate([{"input_ids": prompt.input_ids} for prompt in prompts], pad, padding_side="left")
    longest = batch["input_ids"].shape[1]
    budget = settings.max_new_tokens if settings.max_length is None else settings.max_length - longest
    ends = end_tokens(tokenizer, model)
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=max(1, budget),
        pad_token_id=pad,
        eos_token_id=ends or None,
        bos_token_id=tokenizer.bos_token_id,
    )
    # generate() fills gaps from the model's own settings, sampling included: of the model itself and of its wrapper.
    holders: list[Any] = [
        each for each in (model, causal_model(model)) if getattr(each, "generation_config", None) is not None
    ]
    own = [each.generation_config for each in holders]
    for each in holders:
        each.generation_config = config
    try:
        output = model.generate(
            input_ids=batch["input_ids"].to(device),
            attention_mask=batch["attention_mask"].to(device),
            generation_config=config,
            synced_gpus=sharded,
        )
    finally:
        for each, settings_before in zip(holders, own, strict=True):
            each.generation_config = settings_before
    texts = []
    for row in output[:, longest:].tolist():
        stop = next((index for index, token in enumerate(row) if token in ends), len(row))
        texts.append(str(tokenizer.decode(row[:stop], skip_special_tokens=True)))
    return texts
