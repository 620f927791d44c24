"""Answers to one question in one packed row, so that what they have in common is computed once.

The texts of a group (a question with its right, paraphrased and wrong answers) form a tree, whose branches part where
the texts do: at the latest after the question, often later, since wrong answers repeat most of the right one. A packed
row holds each node of the tree once. A node sees its ancestors and itself, and its position is its depth, so that the
logits there are those of a row of its own.

This is not `likelihood.packed_rows`, which lays sequences end to end and runs attention on one after the other: there
only what all rows begin with is shared, here whatever any two texts of a group begin with, by a mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_hf.data.labels import IGNORE_INDEX
from unlearn_hf.evaluation.token_scores import ScoredText, per_token_statistics, score_batch, text_scores
from unlearn_hf.likelihood.answer_head import ask
from unlearn_hf.likelihood.answer_request import AnswerRequest
from unlearn_hf.likelihood.packed_rows import packing_tolerance
from unlearn_hf.models.wrappers import without_wrappers

LONGEST_ROW = 1024
"""Most tokens of a packed row: attention is computed between all of them, masked or not."""


@dataclass(frozen=True)
class Tree:
    """Tokens that predict something, each prefix once, ancestors before descendants.

    Attributes:
        tokens: of the nodes.
        parents: index of the parent of each node, -1 for a first token.
        depths: position of each node in its texts.
        paths: for each text its nodes; the last token of a text predicts nothing and is none.
    """

    tokens: list[int]
    parents: list[int]
    depths: list[int]
    paths: list[list[int]]


@dataclass(frozen=True)
class TextGroup:
    """Texts that are scored in one row."""

    texts: tuple[ScoredText, ...]

    @property
    def key(self) -> str:
        """Unique name."""
        return f"{self.texts[0].key}+{len(self.texts) - 1}"

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return self.texts[0].length if len(self.texts) == 1 else len(self.tree.tokens)

    @cached_property
    def tree(self) -> Tree:
        """What the texts share."""
        nodes: dict[tuple[int, int], int] = {}
        tree = Tree([], [], [], [])
        for text in self.texts:
            parent, path = -1, []
            for depth, token in enumerate(text.input_ids[:-1]):
                node = nodes.setdefault((parent, token), len(nodes))
                if node == len(tree.tokens):
                    tree.tokens.append(token)
                    tree.parents.append(parent)
                    tree.depths.append(depth)
                path.append(node)
                parent = node
            tree.paths.append(path)
        return tree


def group_texts(texts: Sequence[ScoredText], packed: bool = True) -> list[TextGroup]:
    """Group texts of the same row of the same split, in order, where they begin alike and fit into a row."""
    groups: list[TextGroup] = []
    for text in texts:
        if packed and groups:
            first = groups[-1].texts[0]
            joined = TextGroup((*groups[-1].texts, text))
            if (
                first.key.split("/")[:2] == text.key.split("/")[:2]
                and first.input_ids[0] == text.input_ids[0]
                # What they share is looked for only where they might not fit without it.
                and (sum(each.length for each in joined.texts) <= LONGEST_ROW or joined.length <= LONGEST_ROW)
            ):
                groups[-1] = joined
                continue
        groups.append(TextGroup((text,)))
    return groups


def score_groups(
    model: nn.Module, groups: Sequence[TextGroup], pad_token_id: int, device: torch.device
) -> list[dict[str, Any]]:
    """Score groups with one forward pass; for each group the scores of `score_batch` by key."""
    texts = [text for group in groups for text in group.texts]
    if all(len(group.texts) == 1 for group in groups):
        scores = score_batch(model, texts, pad_token_id, device)
    else:
        scores = _score_packed(model, groups, texts, pad_token_id, device)
    found = iter(scores)
    return [{text.key: next(found) for text in group.texts} for group in groups]


def _score_packed(
    model: nn.Module,
    groups: Sequence[TextGroup],
    texts: Sequence[ScoredText],
    pad_token_id: int,
    device: torch.device,
) -> list[dict[str, Any]]:
    batch = pack(groups, pad_token_id)
    longest = batch["input_ids"].shape[1]
    index: list[int] = []
    nodes: list[int] = []
    labels: list[int] = []
    paths = [(row, path) for row, group in enumerate(groups) for path in group.tree.paths]
    for number, (text, (row, path)) in enumerate(zip(texts, paths, strict=True)):
        for node, label in zip(path, text.labels[1:], strict=True):
            if label != IGNORE_INDEX:
                index.append(number)
                nodes.append(row * longest + node)
                labels.append(label)
    positions, which = torch.tensor(nodes, device=device).unique(return_inverse=True)
    targets = torch.tensor(labels, device=device)
    batch["attention_mask"] = mask_for(model, batch["attention_mask"])
    request = AnswerRequest(positions, longest, keep_logits=True)
    logits = ask(model, {name: value.to(device) for name, value in batch.items()}, request).logits
    assert logits is not None
    token_nll = logits.logsumexp(-1)[which] - logits[which, targets]
    return text_scores(
        texts,
        torch.tensor(index, device=device),
        token_nll,
        lambda chosen: per_token_statistics(logits[which[chosen]], targets[chosen]),
    )


def pack(groups: Sequence[TextGroup], pad_token_id: int) -> dict[str, Tensor]:
    """Packed rows as a batch.

    Returns:
        `input_ids`, `position_ids`, each `[B, T]`, and `attention_mask`, `[B, 1, T, T]`, true where the token of the
        row (third dimension) sees that of the column.
    """
    trees = [group.tree for group in groups]
    shape = (len(trees), max(len(tree.tokens) for tree in trees))
    ids, positions = torch.full(shape, pad_token_id), torch.zeros(shape, dtype=torch.long)
    # Everything sees itself, padding too: the softmax over an empty row of the mask would be NaN.
    seen = torch.eye(shape[1], dtype=torch.bool).repeat(shape[0], 1, 1)
    for row, tree in enumerate(trees):
        ids[row, : len(tree.tokens)] = torch.tensor(tree.tokens)
        positions[row, : len(tree.tokens)] = torch.tensor(tree.depths)
        for path in tree.paths:
            nodes = torch.tensor(path)
            seen[row, nodes[:, None], nodes[None, :]] |= torch.ones(len(path), len(path), dtype=torch.bool).tril()
    return {"input_ids": ids, "position_ids": positions, "attention_mask": seen[:, None]}


def mask_for(model: nn.Module, visible: Tensor) -> Tensor:
    """SDPA takes booleans, eager attention numbers to add."""
    if _attention(model) == "sdpa":
        return visible
    dtype = next(model.parameters()).dtype
    return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)


def _attention(model: nn.Module) -> str | None:
    return getattr(getattr(without_wrappers(model), "config", None), "_attn_implementation", None)


def can_pack(
    model: nn.Module, groups: Sequence[TextGroup], pad_token_id: int, device: torch.device, half: bool = False
) -> bool:
    """Whether `model` gives a packed row the likelihoods of separate rows, within rounding (`half`: half precision).

    Only SDPA and eager attention take a mask between all pairs of tokens. Whether the model heeds it (one with
    recurrent layers, or with attention of its own, does not) is tried on the shortest group.
    """
    candidates = [group for group in groups if len(group.texts) > 1]
    if not candidates or _attention(model) not in ("sdpa", "eager"):
        return False
    plain = without_wrappers(model)
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
    half = half or next(model.parameters()).dtype != torch.float32
    differences = [
        abs(packed[text.key]["nll"] - alone["nll"]) / max(1.0, abs(alone["nll"]))
        for text, alone in zip(group.texts, separate, strict=True)
    ]
    return max(differences) <= packing_tolerance(half)
