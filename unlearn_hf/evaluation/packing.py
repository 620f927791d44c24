"""Answers to one question in one packed row, so that the question is computed once.

A row is `[question | answer 1 | answer 2 | ...]`. An answer sees the question and itself, and its positions continue
those of the question, so that its likelihoods are those of a row of its own. Each answer part begins with a copy of
the last shared token, from which its first token is predicted.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_hf.data.collator import collate
from unlearn_hf.evaluation.scoring import ScoredText, score_batch, text_scores
from unlearn_hf.likelihood import IGNORE_INDEX, answer_likelihood

LONGEST_ROW = 1024
"""Most tokens of a packed row: attention is computed between all of them, masked or not."""
_CLOSE = 1e-4
_CLOSE_IN_HALF_PRECISION = 0.05


@dataclass(frozen=True)
class TextGroup:
    """Texts that begin with the same tokens.

    Attributes:
        texts: the texts.
        shared: how many tokens are computed once; 0 for a single text.
    """

    texts: tuple[ScoredText, ...]
    shared: int = 0

    @property
    def key(self) -> str:
        """Unique name."""
        return f"{self.texts[0].key}+{len(self.texts) - 1}"

    @property
    def length(self) -> int:
        """Tokens of the packed row."""
        return self.shared + sum(text.length - self.shared for text in self.texts)


def group_texts(texts: Sequence[ScoredText], packed: bool = True) -> list[TextGroup]:
    """Group texts of the same row of the same split, in order, by what they share before their answers."""
    groups: list[TextGroup] = []
    for text in texts:
        if packed and groups and _row_of(groups[-1].texts[0]) == _row_of(text):
            last = groups[-1]
            shared = min(_shared(last.texts[0], text), last.shared or text.length)
            joined = TextGroup((*last.texts, text), shared)
            if shared > 0 and joined.length <= LONGEST_ROW:
                groups[-1] = joined
                continue
        groups.append(TextGroup((text,)))
    return groups


def _row_of(text: ScoredText) -> list[str]:
    return text.key.split("/")[:2]


def _shared(first: ScoredText, second: ScoredText) -> int:
    """Tokens both begin with, the last one that predicts a label left out."""
    limit = min(_first_label(first), _first_label(second)) - 1
    pairs = zip(first.input_ids[: max(0, limit)], second.input_ids, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), max(0, limit))


def _first_label(text: ScoredText) -> int:
    return next(at for at, label in enumerate(text.labels) if label != IGNORE_INDEX)


def score_groups(
    model: nn.Module, groups: Sequence[TextGroup], pad_token_id: int, device: torch.device
) -> list[dict[str, Any]]:
    """Score groups with one forward pass; for each group the scores of `score_batch` by key."""
    texts = [text for group in groups for text in group.texts]
    if all(len(group.texts) == 1 for group in groups):
        scores = score_batch(model, texts, pad_token_id, device)
    else:
        batch = pack(groups, pad_token_id)
        batch["attention_mask"] = _mask_for(model, batch["attention_mask"])
        likelihood = answer_likelihood(
            model,
            {name: value.to(device) for name, value in batch.items()},
            keep_logits=any(text.details for text in texts),
        )
        # Labelled tokens come in the order of the texts.
        counts = torch.tensor([sum(label != IGNORE_INDEX for label in text.labels[1:]) for text in texts])
        index = torch.arange(len(texts)).repeat_interleave(counts).to(device)
        scores = text_scores(likelihood, texts, index)
    found = iter(scores)
    return [{text.key: next(found) for text in group.texts} for group in groups]


def pack(groups: Sequence[TextGroup], pad_token_id: int) -> dict[str, Tensor]:
    """Packed rows as a batch.

    Returns:
        `input_ids`, `labels`, `position_ids`, each `[B, T]`, and `attention_mask`, `[B, 1, T, T]`, true where the
        token of the row (third dimension) sees that of the column.
    """
    rows, parts, positions = [], [], []
    for group in groups:
        first = group.texts[0]
        ids, labels = list(first.input_ids[: group.shared]), list(first.labels[: group.shared])
        part, position = [0] * group.shared, list(range(group.shared))
        for number, text in enumerate(group.texts, start=1):
            ids += text.input_ids[group.shared :]
            labels += text.labels[group.shared :]
            part += [number] * (text.length - group.shared)
            position += range(group.shared, text.length)
        rows.append({"input_ids": ids, "labels": labels})
        parts.append(part)
        positions.append(position)
    batch = collate(rows, pad_token_id)
    longest = batch["input_ids"].shape[1]
    batch["position_ids"] = torch.tensor([row + [0] * (longest - len(row)) for row in positions])
    part_ids = torch.tensor([row + [-1] * (longest - len(row)) for row in parts])
    same = (part_ids[:, :, None] == part_ids[:, None, :]) | (part_ids == 0)[:, None, :]
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    # Padding sees padding, so that no row of the mask is empty (its softmax would be NaN).
    batch["attention_mask"] = (same & causal)[:, None]
    return batch


def _mask_for(model: nn.Module, visible: Tensor) -> Tensor:
    """SDPA takes booleans, eager attention numbers to add."""
    if _attention(model) == "sdpa":
        return visible
    dtype = next(model.parameters()).dtype
    return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)


def _attention(model: nn.Module) -> str | None:
    return getattr(getattr(_plain(model), "config", None), "_attn_implementation", None)


def _plain(model: nn.Module) -> nn.Module:
    """The model without data-parallel wrapper and adapter."""
    model = getattr(model, "module", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def can_pack(model: nn.Module, groups: Sequence[TextGroup], pad_token_id: int, device: torch.device) -> bool:
    """Whether `model` gives a packed row the likelihoods of separate rows.

    Only SDPA and eager attention take a mask between all pairs of tokens. Whether the model heeds it (one with
    recurrent layers, or with attention of its own, does not) is tried on the shortest group.
    """
    candidates = [group for group in groups if len(group.texts) > 1]
    if not candidates or _attention(model) not in ("sdpa", "eager"):
        return False
    plain = _plain(model)
    window = getattr(getattr(plain, "config", None), "sliding_window", None)
    virtual_tokens = getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False)
    if virtual_tokens or "position_ids" not in inspect.signature(plain.forward).parameters:
        return False
    if window is not None and window <= max(group.length for group in candidates):
        return False  # the mask would have to leave out what is too far away
    group = min(candidates, key=lambda each: (each.length, each.key))
    separate = score_batch(model, group.texts, pad_token_id, device)
    try:
        [packed] = score_groups(model, [group], pad_token_id, device)
    except (IndexError, RuntimeError, TypeError, ValueError):
        return False  # the way in which an architecture says that it takes no such mask
    tolerance = _CLOSE if next(model.parameters()).dtype == torch.float32 else _CLOSE_IN_HALF_PRECISION
    differences = [
        abs(packed[text.key]["nll"] - alone["nll"]) / max(1.0, abs(alone["nll"]))
        for text, alone in zip(group.texts, separate, strict=True)
    ]
    return max(differences) <= tolerance
