"""Pairs of gradients to try the weightings on."""

from __future__ import annotations

import torch
from hypothesis import assume
from hypothesis import strategies as st

vectors = st.lists(st.floats(-10, 10, allow_nan=False, width=32), min_size=3, max_size=3)


def pair(first: list[float], second: list[float]) -> torch.Tensor:
    """`[2, D]`; pairs with a gradient of almost nothing are left out."""
    jacobian = torch.tensor([first, second], dtype=torch.float64)
    assume(bool((jacobian.norm(dim=1) > 1e-2).all()))
    return jacobian
