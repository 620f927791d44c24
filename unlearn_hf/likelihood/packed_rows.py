"""Batches without padding: sequences end to end in one row, each seeing itself alone.

Every layer but attention treats tokens one by one, so a packed row costs as many tokens as there are. Position ids
that start anew tell transformers where sequences begin; flash attention is told their lengths, because reading them
off positions makes the host wait for the device in every layer (`flash_lengths`). With SDPA, which would otherwise
compute the attention between all tokens of the row and mask most of it, `by_sequence` runs it on one sequence after
the other. There, what all rows of a batch begin with (a system prompt) is computed once, which changes neither values
nor gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from unlearn_hf.models.wrappers import causal_model, has_dropout

PACKING = ("auto", "true", "false")
SHORTEST_SHARED = 8
"""Tokens that all rows must begin with for them to share these."""
_BY_SEQUENCE = "sdpa_by_sequence"


def sdpa_by_sequence(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sequence_lengths: tuple[int, ...] = (),
    shared: int = 0,
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
        shared: tokens of the first sequence that every later one begins with, and sees; 0 if there are none. The
            first sequence then consists of these alone.
        sliding_window: how many tokens a token sees, itself included, where the layer limits it.
        **options: what transformers passes on to SDPA (dropout, scale).

    Returns:
        `[1, T, heads, D]`, and no attention weights.
    """
    options.pop("is_causal", None)
    found, start = [], 0
    for length in sequence_lengths:
        before = shared if start else 0
        keys, values = (
            torch.cat([each[:, :, :before], each[:, :, start : start + length]], dim=2)
            if before
            else each[:, :, start : start + length]
            for each in (key, value)
        )
        mask = None
        if before or (sliding_window is not None and length > sliding_window):
            mask = torch.ones(length, before + length, dtype=torch.bool, device=query.device).tril(before)
            if sliding_window is not None:
                mask = mask.triu(before + 1 - sliding_window)
            mask = mask[None, None]
        attended, _ = sdpa_attention_forward(
            module, query[:, :, start : start + length], keys, values, mask, is_causal=True, **options
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


def pack(batch: Mapping[str, Tensor], positions: Tensor, share: bool = False) -> tuple[dict[str, Any], Tensor]:
    """Lay the rows of a padded batch end to end; what comes after the last answer position of a row is left out.

    Args:
        batch: `input_ids` and `attention_mask`, `[B, T]`, padded on the right.
        positions: where the model is asked, as indices into the flattened batch, `[N]`, in order.
        share: put what all rows begin with (a system prompt) first, and only once, if that is long enough to pay.

    Returns:
        Arguments of the model's forward, and the same positions in the packed row `[1, S]`.
    """
    ids = batch["input_ids"]
    count, longest = ids.shape
    columns = torch.arange(longest, device=ids.device)
    needed = torch.zeros(count, dtype=torch.long, device=ids.device)
    needed.scatter_reduce_(0, positions // longest, positions % longest + 1, "amax")
    if not len(positions):
        needed[0] = 1  # a model takes no empty row
    rows = needed > 0
    shared = 0
    if share and int(rows.sum()) > 1:
        same = (ids[rows] == ids[rows][:1]).all(0) & (columns < needed[rows].min())
        shared = int(same.long().cumprod(0).sum())
        shared = shared if shared >= SHORTEST_SHARED else 0
    kept = (columns < needed[:, None]) & (columns >= shared)
    # Where each token of the batch is in the packed row; the shared ones, of any row, are at its beginning.
    place = torch.where(columns < shared, columns, kept.flatten().cumsum(0).view(count, longest) - 1 + shared)
    first = ids[rows][0, :shared]
    inputs = {
        "input_ids": torch.cat([first, ids[kept]])[None],
        "position_ids": torch.cat([columns[:shared], columns.expand(count, -1)[kept]])[None],
        "sequence_lengths": tuple(length for length in (shared, *(kept.sum(-1).tolist())) if length),
    }
    return inputs | ({"shared": shared} if shared else {}), place.flatten()[positions]


def flash_lengths(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers' flash attention takes of a packed row, computed once for all layers.

    Args:
        model: a causal language model, wrapped or not.
        inputs: what `pack` gave.

    Returns:
        `cu_seq_lens_q` and `cu_seq_lens_k`, the cumulative lengths `[sequences + 1]`, int32, and the longest as
        `max_length_q` and `max_length_k`; nothing under other kinds of attention.
    """
    if "flash" not in _attention(model):
        return {}
    lengths = inputs["sequence_lengths"]
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=inputs["input_ids"].device)
    return {f"cu_seq_lens_{side}": ends for side in "qk"} | {f"max_length_{side}": max(lengths) for side in "qk"}


def _attention(model: nn.Module) -> str:
    return str(getattr(getattr(causal_model(model), "config", None), "_attn_implementation", None))


def can_share(model: nn.Module) -> bool:
    """Whether rows may share what they begin with: under SDPA, where no dropout tells them apart."""
    return _attention(model) in ("sdpa", _BY_SEQUENCE) and not (model.training and has_dropout(model))


def packing_pays(model: nn.Module, device: torch.device) -> bool:
    """Whether attention over a packed row costs no more than over padded rows.

    It does not where it stays within sequences: flash attention, and `by_sequence` on the CPU, where no kernel waits
    to be launched. Other kinds compute a score for each pair of tokens of the row.
    """
    attention = _attention(model)
    return "flash" in attention or (attention == "sdpa" and device.type == "cpu")


def packing_tolerance(half: bool) -> float:
    """How far likelihoods of packed rows may be from those of padded ones, as a share of these.

    Args:
        half: whether the model computes in half precision.
    """
    return 0.05 if half else 1e-4
