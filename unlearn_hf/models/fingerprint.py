"""A hash that tells two models apart."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn

from unlearn_hf.models.sharding import whole
from unlearn_hf.models.wrappers import without_wrappers

_SAMPLED_VALUES = 1024
# What a configuration says beside what the model computes; precisions are those of the tensors.
_NO_EFFECT = (
    "_name_or_path",
    "architectures",
    "base_model_name_or_path",
    "dtype",
    "inference_mode",
    "transformers_version",
    "use_cache",
)


def model_fingerprint(model: nn.Module) -> str:
    """Hash what the outputs of `model` depend on.

    That is: names, shapes, precisions, sums, and up to 1024 values of parameters and buffers; the configuration, which
    may change what the same weights compute (`rope_theta`); the implementation of attention; adapters, their settings
    and which of them are active. Sums are taken in float64, so a change of a single weight shows unless it cancels
    exactly.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()], key=lambda pair: pair[0]):
        with whole(tensor) as found:
            values = found.reshape(-1)
            stride = max(1, values.numel() // _SAMPLED_VALUES)
            sample = values[::stride].float().cpu()
            total = values.sum(dtype=torch.float64).item()
            digest.update(f"{name}{tuple(found.shape)}{found.dtype}{total!r}".encode())
            digest.update(sample.numpy().tobytes())
    digest.update(json.dumps(_configuration(model), sort_keys=True, default=_json_ready).encode())
    return digest.hexdigest()


def _configuration(model: nn.Module) -> dict[str, Any]:
    config = getattr(without_wrappers(model), "config", None)
    adapted: Any = getattr(model, "module", model)
    active = getattr(adapted, "active_adapters", None) if hasattr(adapted, "peft_config") else None
    return {
        "model": _settings(config),
        "attention": getattr(config, "_attn_implementation", None),
        "adapters": {name: _settings(each) for name, each in getattr(adapted, "peft_config", {}).items()},
        "active": active() if callable(active) else active,
        "disabled": any(getattr(module, "disable_adapters", None) is True for module in model.modules()),
    }


def _settings(config: Any) -> dict[str, Any]:
    found = config.to_dict() if hasattr(config, "to_dict") else {}
    return {name: value for name, value in found.items() if name not in _NO_EFFECT}


def _json_ready(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)
