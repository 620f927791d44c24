"""Several processes, and what a distributed backend can do, checked before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor


def join_processes() -> None:
    """Let processes that were launched together on CPUs find each other.

    Without a GPU, transformers looks for them only when told to use the CPU; otherwise each would silently do the
    whole work alone and overwrite the others' files. Call it before training arguments or an `Accelerator` are made.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.accelerator.is_available():
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")


def shards(accelerator: Accelerator | None) -> bool:
    """Whether ranks hold parts of the model, so that each must take part in every forward pass of the others."""
    return accelerator is not None and accelerator.distributed_type in (
        DistributedType.FSDP,
        DistributedType.DEEPSPEED,
    )


def keep_outputs_in_float32(accelerator: Accelerator) -> None:
    """Let FSDP2 compute in half precision, but neither round the likelihoods of a model nor add up gradients in it.

    accelerate asks it to cast all outputs, of which an NLL of 179.4 nats comes back as 180.
    """
    plugin: Any = getattr(accelerator.state, "fsdp_plugin", None)
    policy = getattr(plugin, "mixed_precision_policy", None)
    if isinstance(policy, MixedPrecisionPolicy):
        plugin.mixed_precision_policy = replace(policy, output_dtype=None, reduce_dtype=torch.float32)


@contextmanager
def whole(parameter: Tensor) -> Iterator[Tensor]:
    """The values of a parameter or buffer of which this rank may hold a part; every rank must ask."""
    values = parameter.detach()
    if isinstance(values, DTensor):
        yield values.full_tensor()
    elif hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            yield parameter.detach()
    else:
        yield values


def reshard(model: nn.Module) -> None:
    """Give sharded modules their sharded parameters back after a forward pass that no backward pass follows.

    Until then `model.parameters()` of FSDP2 are the gathered ones: `zero_grad` and clipping would miss the gradients,
    and another forward pass would not see an update.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
