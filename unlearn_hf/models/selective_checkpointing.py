"""Activation checkpointing that computes only the cheap part of a layer again.

Matrix products and attention are most of the time of a layer, the rest (norms, activation functions, rotations) is
about half of what its backward pass needs to remember. Keeping the former and computing the latter again is between no
checkpointing and that of transformers, which computes all of it again.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from unlearn_hf.models.wrappers import has_dropout

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
_ATTENTIONS = tuple(
    f"_scaled_dot_product_{kind}_attention{suffix}"
    for kind, suffix in (("flash", ""), ("flash", "_for_cpu"), ("efficient", ""), ("cudnn", ""))
)


def _policy(kept: set[Any], context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in kept else CheckpointPolicy.PREFER_RECOMPUTE


def enable_selective_checkpointing(model: nn.Module) -> None:
    """Let every layer of `model` keep what matrix products and attention gave, and compute the rest again.

    Args:
        model: a `PreTrainedModel` or `PeftModel`.

    Raises:
        ValueError: when the architecture supports no activation checkpointing.
    """
    # With dropout, attention draws random numbers; kept, it would not, and those that follow would be others.
    names = _PRODUCTS if has_dropout(model) else _PRODUCTS + _ATTENTIONS
    kept = {getattr(torch.ops.aten, name).default for name in names if hasattr(torch.ops.aten, name)}
    contexts = partial(create_selective_checkpoint_contexts, partial(_policy, kept))
    enable: Any = model.activation_checkpointing_enable
    enable(activation_checkpointing_kwargs={"use_reentrant": False, "context_fn": contexts})
