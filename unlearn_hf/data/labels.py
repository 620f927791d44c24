"""Labels: which tokens of a row are predicted, and from where."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100


def label_positions(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Find where labels are predicted.

    Args:
        labels: `[B, T]`, -100 where nothing is scored. The label at `t` is predicted from position `t - 1`; a label
            at position 0 cannot be predicted and is not counted.

    Returns:
        Indices into the flattened `[B * T]` positions, and the labels there; both `[N]`.
    """
    shifted = F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)
    positions = (shifted.reshape(-1) != IGNORE_INDEX).nonzero().squeeze(-1)
    return positions, shifted.reshape(-1)[positions]


def label_counts(labels: Tensor) -> Tensor:
    """Count the predicted labels of each sequence: `[B, T]` to `[B]`."""
    return (labels[:, 1:] != IGNORE_INDEX).sum(-1)
