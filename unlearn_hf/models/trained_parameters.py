"""What of a model is trained: adapters, chosen parameters, and the precision that their updates need."""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from unlearn_hf.models.selective_checkpointing import enable_selective_checkpointing


def prepare_model(model: nn.Module, args: Any, peft_config: Any | None) -> nn.Module:
    """Add an adapter, choose what is trained, and raise what is trained to master precision.

    Args:
        model: a `PreTrainedModel` or `PeftModel`.
        args: a `FinetuningConfig`.
        peft_config: an adapter to add, or `None`.

    Raises:
        ValueError: when an adapter is to be added to a model that has one, a pattern matches no parameter, or nothing
            is left to train.
        TypeError: when `model` is no transformers or PEFT model.
    """
    is_peft = hasattr(model, "peft_config") and not isinstance(model, PreTrainedModel)
    if not isinstance(model, PreTrainedModel) and not is_peft:
        raise TypeError(
            f"model: {type(model).__name__} is neither a hub id, a path, a PreTrainedModel nor a PeftModel."
        )
    if peft_config is not None:
        if is_peft:
            raise ValueError("peft_config: the model already carries an adapter; pass one or the other.")
        from peft import get_peft_model

        try:
            model = get_peft_model(model, peft_config)
        except ValueError as problem:
            raise ValueError(f"peft_config: {_targets(model, peft_config)} ({problem})") from problem
    if args.trainable_parameters:
        select_trainable(model, args.trainable_parameters)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "model: none of its parameters is to be trained; an adapter loaded with PeftModel.from_pretrained needs "
            "is_trainable=True."
        )
    dtype = getattr(torch, args.trainable_dtype)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != dtype and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    if dtype != torch.float32 and not next(model.parameters()).is_meta:
        share = rounded_away(model, args.learning_rate)
        warnings.warn(
            f"trainable_dtype: with {args.trainable_dtype} weights and learning_rate {args.learning_rate:g}, about "
            f"{share:.0%} of the updates round to zero. Use float32 weights, and bf16 for compute only.",
            stacklevel=2,
        )
    if args.selective_checkpointing:
        enable_selective_checkpointing(model)
    return model


def _targets(model: nn.Module, peft_config: Any) -> str:
    """What an adapter asks for that the model has not, and the layers that there are."""
    wanted = getattr(peft_config, "target_modules", None) or "none"
    layers = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    shown = wanted if isinstance(wanted, str) else ", ".join(sorted(wanted))
    return (
        f"no adapter can be added for target_modules (--lora_target_modules) {shown}; the linear layers here are "
        f"{', '.join(sorted(layers)) or 'none'}, and all-linear takes all but the last"
    )


def select_trainable(model: nn.Module, patterns: list[str]) -> None:
    """Train only the parameters whose name matches one of the regular expressions (and could be trained before).

    Raises:
        ValueError: when a pattern is no regular expression or matches nothing.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    chosen: set[str] = set()
    for pattern in patterns:
        try:
            matches = {name for name in names if re.search(pattern, name)}
        except re.error as problem:
            raise ValueError(
                f"trainable_parameters: {pattern!r} is not a regular expression ({problem})."
            ) from problem
        if not matches:
            raise ValueError(
                f"trainable_parameters: {pattern!r} matches none of the {len(names)} parameters, such as {names[0]!r}."
            )
        chosen |= matches
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)


def rounded_away(model: nn.Module, update: float) -> float:
    """Share of trained weights that an Adam-sized update of magnitude `update` leaves unchanged by rounding.

    An update below half a unit in the last place of the weight is lost.
    """
    lost, total = 0, 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            unit = torch.finfo(parameter.dtype).eps * torch.exp2(
                torch.floor(torch.log2(parameter.detach().float().abs()))
            )
            lost += int((unit / 2 > update).sum())
            total += parameter.numel()
    return lost / max(total, 1)
