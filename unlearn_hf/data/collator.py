"""Rows to padded batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unlearn_hf.data.labels import IGNORE_INDEX


def collate(
    examples: Sequence[Mapping[str, Any]], pad_token_id: int, padding_side: Literal["left", "right"] = "right"
) -> dict[str, Tensor]:
    """Pad encoded rows to the longest of them.

    The attention mask comes from the lengths, never from the ids: where the pad token is also the end-of-sequence
    token, the real ones inside a row stay visible and labelled.

    Args:
        examples: rows with `input_ids` and optionally `labels`; other columns of scalar numbers become `[B]` tensors
            (float32 or int64), anything else is left out.
        pad_token_id: fills up.
        padding_side: where it fills up.

    Returns:
        `input_ids`, `attention_mask` and, where present, `labels`, each `[B, T]`; with left padding also
        `position_ids`, which count from the first real token.

    Raises:
        ValueError: when there are no rows.
    """
    if not examples:
        raise ValueError("examples: a batch needs at least one row.")
    lengths = [len(example["input_ids"]) for example in examples]
    shape = (len(examples), max(lengths))
    filled = {"input_ids": torch.full(shape, pad_token_id), "attention_mask": torch.zeros(shape, dtype=torch.long)}
    if "labels" in examples[0]:
        filled["labels"] = torch.full(shape, IGNORE_INDEX)
    for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
        place = slice(0, length) if padding_side == "right" else slice(shape[1] - length, shape[1])
        filled["attention_mask"][row, place] = 1
        for name in ("input_ids", "labels"):
            if name in filled:
                filled[name][row, place] = torch.as_tensor(example[name], dtype=torch.long)
    if padding_side == "left":
        filled["position_ids"] = (filled["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    for name, value in examples[0].items():
        if name not in ("input_ids", "labels", "attention_mask") and isinstance(value, Real):
            dtype = torch.int64 if isinstance(value, Integral) else torch.float32
            filled[name] = torch.tensor([example[name] for example in examples], dtype=dtype)
    return filled


def join(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Put the rows of padded batches under one another, with padding to the longest; what not all have is left out."""
    longest = max(batch["input_ids"].shape[1] for batch in batches)
    fill = {"labels": IGNORE_INDEX}
    joined = {}
    for name, first in batches[0].items():
        if all(name in batch for batch in batches):
            values = [batch[name] for batch in batches]
            if first.dim() == 2:
                values = [F.pad(each, (0, longest - each.shape[1]), value=fill.get(name, 0)) for each in values]
            joined[name] = torch.cat(values)
    return joined


@dataclass
class UnlearningCollator:
    """Pairs to `{"forget": batch, "retain": batch, ...}`, one for each set they have; plain rows to one batch."""

    pad_token_id: int

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate pairs or plain rows."""
        if "input_ids" in examples[0]:
            return dict(collate(examples, self.pad_token_id))
        return {name: collate([example[name] for example in examples], self.pad_token_id) for name in examples[0]}
