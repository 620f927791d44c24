"""Quantisation: weights rounded to few levels, as a model is deployed; small changes of unlearning may round away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from unlearn_hf.audit.base import AuditAttack, AuditPass, Findings

if TYPE_CHECKING:
    from torch import Tensor, nn

NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
    0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The 16 levels of NF4: quantiles of a normal distribution, scaled to [-1, 1] (Dettmers et al. 2023, 2305.14314)."""
BLOCK = 64
_TINY = 2.0**-126  # the smallest normal number of float32: a row of zeros stays one


def round_to_nearest(weight: Tensor, bits: int) -> Tensor:
    """Round each row to `2^bits - 1` evenly spaced levels between minus and plus its largest magnitude.

    Args:
        weight: shape `[rows, columns]`.
        bits: 2 to 8.

    Returns:
        The rounded weights, same shape and precision.

    Raises:
        ValueError: for other numbers of bits.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits: {bits} is not from 2 to 8; give 4 or 8.")
    levels = 2 ** (bits - 1) - 1
    scale = weight.float().abs().amax(dim=1, keepdim=True).clamp(min=_TINY) / levels
    return ((weight.float() / scale).round() * scale).to(weight.dtype)


def nf4(weight: Tensor, block: int = BLOCK) -> Tensor:
    """Round to NF4: each block of weights, divided by its largest magnitude, takes the nearest of 16 levels.

    Args:
        weight: any shape; blocks follow its memory, the last may be short.
        block: weights that share a scale, which stays in float32 (no double quantisation).

    Returns:
        The rounded weights, same shape and precision.

    Source:
        Dettmers et al. 2023, QLoRA, arXiv 2305.14314, section 3.
    """
    import torch

    levels = torch.tensor(NF4_LEVELS, device=weight.device)
    between = (levels[1:] + levels[:-1]) / 2
    flat = weight.float().reshape(-1)
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % block)).view(-1, block)
    scale = blocks.abs().amax(dim=1, keepdim=True).clamp(min=_TINY)
    rounded = levels[torch.bucketize(blocks / scale, between)] * scale
    return rounded.view(-1)[: len(flat)].view(weight.shape).to(weight.dtype)


def bitsandbytes_nf4(weight: Tensor) -> Tensor:
    """The same by bitsandbytes: what its 4-bit layers multiply with."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    # As one row: on a CPU, 0.50 takes scales of wrong blocks where rows are no multiple of a block.
    packed, state = quantize_4bit(weight.reshape(1, -1).contiguous(), blocksize=BLOCK, quant_type="nf4")
    return dequantize_4bit(packed, state).view(weight.shape).to(weight.dtype)


def quantise(model: nn.Module, rounding: Callable[[Tensor], Tensor]) -> int:
    """Round the weights of all linear layers but the output head, in place, as deployed 4-bit and 8-bit models have.

    Embeddings, norms and biases stay as they are, as they do with bitsandbytes.

    Args:
        model: a causal language model without adapters.
        rounding: maps a weight of shape `[outputs, inputs]` to the rounded one.

    Returns:
        How many weights were rounded.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    head = getattr(model, "get_output_embeddings", lambda: None)()
    count = 0
    with torch.no_grad():
        for module in model.modules():
            if not isinstance(module, torch.nn.Linear | Conv1D) or module is head:
                continue
            weight = module.weight
            turned = isinstance(module, Conv1D)  # which keeps [inputs, outputs]
            rounded = rounding(weight.T if turned else weight)
            weight.copy_(rounded.T if turned else rounded)
            count += weight.numel()
    return count


_ROUNDINGS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "8bit": lambda weight: round_to_nearest(weight, 8),
    "4bit": lambda weight: round_to_nearest(weight, 4),
    "nf4": nf4,
    "nf4_bitsandbytes": bitsandbytes_nf4,
}


class Quantisation(AuditAttack):
    """The measures again with rounded weights."""

    summary = "weights rounded to 8 and 4 bits (nearest level, NF4; by bitsandbytes too where it is installed)"
    paper = "Zhang et al. 2025, arXiv 2410.16454"
    compared_by = "Q"
    changes_model = True
    shown = ("extraction_strength", "rouge_l_recall")

    def variants(self) -> tuple[str, ...]:
        """The roundings that can be made here."""
        from importlib.util import find_spec

        there = find_spec("bitsandbytes") is not None
        return tuple(name for name in _ROUNDINGS if there or not name.endswith("bitsandbytes"))

    def findings(self, run: AuditPass, variant: str) -> Findings:
        """Round a copy, and measure it."""
        model = run.copied_model()
        count = quantise(model, _ROUNDINGS[variant])
        if not count:
            raise ValueError("quantisation: the model has no linear layer to round; leave it out by --attacks.")
        return run.measured(model, run.forget)


QUANTISATION = Quantisation()
