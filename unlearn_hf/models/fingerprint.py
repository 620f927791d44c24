"""A hash that tells two models apart."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from unlearn_hf.models.sharding import whole

_SAMPLED_VALUES = 1024


def model_fingerprint(model: nn.Module) -> str:
    """Hash the parameters of `model`: names, shapes, sums, and up to 1024 values of each.

    Sums are taken in float64, so a change of a single weight shows unless it cancels exactly.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        with whole(parameter) as tensor:
            values = tensor.reshape(-1)
            stride = max(1, values.numel() // _SAMPLED_VALUES)
            sample = values[::stride].float().cpu()
            digest.update(f"{name}{tuple(tensor.shape)}{values.sum(dtype=torch.float64).item()!r}".encode())
            digest.update(sample.numpy().tobytes())
    return digest.hexdigest()
