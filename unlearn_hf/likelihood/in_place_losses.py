"""Losses over a vocabulary whose gradient overwrites the logits, so that these exist once instead of three times.

The logits must not be used elsewhere: autograd's version counter raises an error where a backward pass needs them.

This stays beside the chunks, which bound the logits too, because most batches fit into one chunk: with a vocabulary of
49152, 4 + 4 rows and a small model, all tensors together peak at 279 MiB instead of 296 (cross-entropy), and at 334
instead of 499 (KL divergence).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def _in_parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """A few rows of each at a time, because temporary copies are of as many."""
    rows = 32 if tensors[0].device.type == "cpu" else 256
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _log_normaliser(logits: Tensor) -> Tensor:
    return torch.cat([rows.logsumexp(-1) for (rows,) in _in_parts(logits)])


class InPlaceCrossEntropy(torch.autograd.Function):
    """Cross-entropy of each row: logits `[n, V]` (float32) and targets `[n]` to `[n]`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """`logsumexp(logits) - logits[target]`."""
        normaliser = _log_normaliser(logits)
        ctx.save_for_backward(logits, targets, normaliser)
        return normaliser - logits.gather(-1, targets[:, None]).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """`gradient (softmax - onehot)`, written over the logits."""
        logits, targets, normaliser = ctx.saved_tensors
        for rows, chosen, shift, factor in _in_parts(logits, targets, normaliser, gradient):
            rows.sub_(shift[:, None]).exp_().mul_(factor[:, None])
            rows.scatter_add_(-1, chosen[:, None], -factor[:, None])
        return logits, None


class InPlaceDivergence(torch.autograd.Function):
    """`KL(p_reference || p)` of each row: logits `[n, V]` and those of the reference (float32) to `[n]`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, reference: Tensor) -> Tensor:
        """`sum_v p_reference (log p_reference - log p)`."""
        normaliser, normaliser_reference = _log_normaliser(logits), _log_normaliser(reference)
        ctx.save_for_backward(logits, reference, normaliser, normaliser_reference)
        found = []
        for rows, others, shift, shift_others in _in_parts(logits, reference, normaliser, normaliser_reference):
            log_p, log_p_reference = rows - shift[:, None], others - shift_others[:, None]
            # A token that the reference excludes (log-probability minus infinity) contributes nothing.
            difference = (log_p_reference - log_p).masked_fill_(log_p_reference == -torch.inf, 0.0)
            found.append((log_p_reference.exp_() * difference).sum(-1))
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """`gradient (p - p_reference)`, written over the logits."""
        logits, reference, normaliser, normaliser_reference = ctx.saved_tensors
        for rows, others, shift, shift_others, factor in _in_parts(
            logits, reference, normaliser, normaliser_reference, gradient
        ):
            rows.sub_(shift[:, None]).exp_().sub_((others - shift_others[:, None]).exp_()).mul_(factor[:, None])
        return logits, None


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each row, `[n]`, in place where there is a gradient; see `InPlaceCrossEntropy`."""
    return InPlaceCrossEntropy.apply(logits, targets)


def divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """Kullback-Leibler divergence of each row, `[n]`, in place where there is a gradient; see `InPlaceDivergence`."""
    return InPlaceDivergence.apply(logits, reference)
