"""Batches without padding: sequences end to end in one row, each seeing itself alone.

Every layer but attention treats tokens one by one, so a packed row costs as many tokens as there are. Position ids
that start anew tell transformers (and flash attention) where sequences begin; with SDPA, which would otherwise compute
the attention between all tokens of the row and mask most of it, `by_sequence` runs it on one sequence after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from unlearn_hf.chunked import causal_model

PACKING = ("auto", "true", "false")
_BY_SEQUENCE = "sdpa_by_sequence"


def sdpa_by_sequence(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sequence_lengths: tuple[int, ...] = (),
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """SDPA within each sequence of a packed row.

    Args:
        module: the attention layer.
        query: `[1, heads, T, D]`; `key` and `value` alike.
        key: see `query`.
        value: see `query`.
        attention_mask: is not used.
        sequence_lengths: lengths of the sequences, which add up to `T`.
        sliding_window: how many tokens a token sees, itself included, where the layer limits it.
        **options: what transformers passes on to SDPA (dropout, scale).

    Returns:
        `[1, T, heads, D]`, and no attention weights.
    """
    options.pop("is_causal", None)
    found, start = [], 0
    for length in sequence_lengths:
        part = slice(start, start + length)
        mask = None
        if sliding_window is not None and length > sliding_window:
            mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
            mask = mask.triu(1 - sliding_window)[None, None]
        attended, _ = sdpa_attention_forward(
            module, query[:, :, part], key[:, :, part], value[:, :, part], mask, is_causal=True, **options
        )
        found.append(attended)
        start += length
    return torch.cat(found, dim=1), None


AttentionInterface.register(_BY_SEQUENCE, sdpa_by_sequence)


@contextmanager
def by_sequence(model: nn.Module, active: bool = True) -> Iterator[None]:
    """Within the context, packed rows cost attention within sequences only, where the model uses SDPA.

    Backward passes that compute activations again (activation checkpointing) belong inside.
    """
    inner = causal_model(model)
    config: Any = inner.config if inner is not None else None
    if not active or config is None or config._attn_implementation != "sdpa":
        yield
        return
    config._attn_implementation_internal = _BY_SEQUENCE
    try:
        yield
    finally:
        config._attn_implementation_internal = "sdpa"


def pack(batch: Mapping[str, Tensor], positions: Tensor) -> tuple[dict[str, Any], Tensor]:
    """Lay the rows of a padded batch end to end; what comes after the last answer position of a row is left out.

    Args:
        batch: `input_ids` and `attention_mask`, `[B, T]`, padded on the right.
        positions: where the model is asked, as indices into the flattened batch, `[N]`, in order.

    Returns:
        Arguments of the model's forward, and the same positions in the packed row `[1, S]`.
    """
    count, longest = batch["input_ids"].shape
    device = batch["input_ids"].device
    needed = torch.zeros(count, dtype=torch.long, device=device)
    needed.scatter_reduce_(0, positions // longest, positions % longest + 1, "amax")
    if not len(positions):
        needed[0] = 1  # a model takes no empty row
    lengths = tuple(length for length in needed.tolist() if length)
    kept = torch.arange(longest, device=device) < needed[:, None]
    place = kept.flatten().cumsum(0) - 1
    starts = torch.arange(longest, device=device).expand(count, -1)[kept]
    inputs = {"input_ids": batch["input_ids"][kept][None], "position_ids": starts[None]}
    return inputs | {"sequence_lengths": lengths}, place[positions]


def packing_pays(model: nn.Module, device: torch.device) -> bool:
    """Whether attention over a packed row costs no more than over padded rows.

    It does not where it stays within sequences: flash attention, and `by_sequence` on the CPU, where no kernel waits
    to be launched. Other kinds compute a score for each pair of tokens of the row.
    """
    inner = causal_model(model)
    attention = str(getattr(getattr(inner, "config", None), "_attn_implementation", None))
    return "flash" in attention or (attention == "sdpa" and device.type == "cpu")
