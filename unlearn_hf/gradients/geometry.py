"""How the two gradients lie to each other: norms and cosine, over the whole model and by part of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from unlearn_hf.common.files import drop_lines_beyond

GEOMETRY_FILE = "gradient_geometry.jsonl"
GEOMETRY_VIEWS = ("none", "total", "layers")

_IN_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.([^.]+)")
_KINDS = (
    ("norm", re.compile(r"norm|^ln_|^ln\d?$")),
    ("attention", re.compile(r"attn|attention")),
    ("mlp", re.compile(r"mlp|^fc\d?$|feed_forward|ffn|moe|experts|^dense_")),
)
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output_embeddings)\.")
_EMBEDDING = re.compile(r"embed|(?:^|\.)(?:wte|wpe)\.")


def parameter_group(name: str) -> str:
    """The part of a transformer that a parameter belongs to, from its name (adapters belong to what they adapt).

    Returns:
        `layers.<number>.attention`, `.mlp`, `.norm` or `.other`; elsewhere `embedding`, `head`, `norm` or `other`.
        A head that is tied to the embedding goes by the name `embedding`.
    """
    if found := _IN_LAYER.search(name):
        part = found.group(2)
        kind = next((kind for kind, pattern in _KINDS if pattern.search(part)), "other")
        return f"layers.{found.group(1)}.{kind}"
    if _HEAD.search(name):
        return "head"
    if _EMBEDDING.search(name):
        return "embedding"
    return "norm" if re.search(r"norm|(?:^|\.)ln_", name) else "other"


def norms_and_cosine(gram: Tensor) -> dict[str, float]:
    """Norms and cosine of forget and retain gradient from their Gram matrix `[2, 2]`; cosine 0 if one vanishes."""
    forget, retain = gram.diagonal().sqrt().tolist()
    cosine = gram[0, 1].item() / (forget * retain) if forget * retain > 0 else 0.0
    return {"forget_gradient_norm": forget, "retain_gradient_norm": retain, "gradient_cosine": cosine}


class GradientGeometryFile:
    """Writes norms and cosine by part of the model to `gradient_geometry.jsonl`, one line for each logged step.

    A line holds `step`, the two weights, norms and cosine of the whole gradients, and under `groups` those of every
    `parameter_group`. They are those of the one step, not means since the line before.

    Args:
        folder: where the file goes.
        names: of the trained parameters, in the order of the Gram matrices.
        step: the step training begins at; a resumed run drops the lines beyond it.
    """

    def __init__(self, folder: Path, names: Sequence[str], step: int = 0) -> None:
        self.path = folder / GEOMETRY_FILE
        groups = [parameter_group(name) for name in names]
        self.groups = list(dict.fromkeys(groups))
        self._index = torch.tensor([self.groups.index(group) for group in groups])
        folder.mkdir(parents=True, exist_ok=True)
        drop_lines_beyond(self.path, step)

    def write(self, step: int, grams: Tensor, weights: tuple[float, float]) -> None:
        """Add a line.

        Args:
            step: the optimizer step.
            grams: Gram matrices of all trained parameters, `[P, 2, 2]`.
            weights: of the forget and the retain gradient.
        """
        by_group = torch.zeros(len(self.groups), 2, 2, dtype=grams.dtype).index_add(0, self._index, grams)
        line = {
            "step": step,
            "forget_weight": weights[0],
            "retain_weight": weights[1],
            **norms_and_cosine(grams.sum(0)),
            "groups": {group: norms_and_cosine(gram) for group, gram in zip(self.groups, by_group, strict=True)},
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
