"""Continuations by the continuous batching of transformers: texts that are done make room for others.

It runs in a thread of its own, where no mixed precision of ours holds, and draws from one generator for all texts; so
it is for greedy decoding in the precision of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from unlearn_hf.models.wrappers import causal_model

_PAGE = 256
_MOST_TEXTS_ON_CPU, _TOKENS_ON_CPU = 64, 512


def continuous_tokens(
    model: Any, prompts: Sequence[list[int]], config: GenerationConfig, device: torch.device
) -> list[list[int]]:
    """New tokens of each prompt.

    Args:
        model: a causal language model.
        prompts: their tokens.
        config: as for `generate` of transformers, with `max_new_tokens`.
        device: of the model.

    Raises:
        ValueError: for sampling and mixed precision.
        RuntimeError: when transformers gives no text for a prompt; its log says why.
    """
    reason = None
    if config.do_sample:
        reason = "draws all texts from one generator, so that a sample would depend on its batch"
    elif torch.is_autocast_enabled(device.type):
        reason = "runs in a thread of its own, without mixed precision"
    if reason is not None:
        raise ValueError(f"generation_backend: 'transformers_continuous' {reason}; use 'auto'.")
    batching: dict[str, Any] = {}
    if device.type == "cpu":  # the default takes most of the memory that there is
        longest = max(map(len, prompts)) + int(config.max_new_tokens or 0)
        blocks = min(_MOST_TEXTS_ON_CPU, len(prompts)) * (longest // _PAGE + 1) + 1
        batching = {"num_blocks": blocks, "max_batch_tokens": _TOKENS_ON_CPU}
    inner: Any = causal_model(model) or model
    outputs = inner.generate_batch(
        list(map(list, prompts)),
        generation_config=config,
        continuous_batching_config=ContinuousBatchingConfig(**batching),
        warmup=False,
    ).values()
    errors = [str(output.error) for output in outputs if output.error is not None]
    if errors or len(outputs) < len(prompts):
        raise RuntimeError(
            f"generation_backend: 'transformers_continuous' gave {len(outputs) - len(errors)} of {len(prompts)} texts "
            f"({errors[0] if errors else 'the log above says why'}); use 'auto'."
        )
    return [list(output.generated_tokens) for output in outputs]
