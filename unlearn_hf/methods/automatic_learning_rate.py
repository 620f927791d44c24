"""AutoLR: the learning rate from the curvature of the retain loss along the actual update (GeN)."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

SMOOTHING = 0.9


def newton_ratio(at: float, ahead: float, behind: float) -> float | None:
    """How much longer the step should have been: `eta* / eta = (M - P) / (2 (P - 2 L0 + M))`.

    Args:
        at: L0, the loss before the step.
        ahead: P, the loss after the step.
        behind: M, the loss after the mirrored step, `2 theta_t - theta_{t+1}`.

    Returns:
        The ratio clipped to [1/2, 2], or `None` where the parabola gives no answer: a value that is not finite, no
        positive curvature, or no descent.

    Source: Bu and Xu, "Gradient descent with generalized Newton's method", ICLR 2025, arXiv 2407.02772.
    """
    curvature = ahead + behind - 2 * at
    slope = (behind - ahead) / 2
    if not all(map(math.isfinite, (at, ahead, behind))) or curvature <= 0 or slope <= 0:
        return None
    return min(2.0, max(0.5, slope / curvature))


class AutomaticLearningRate(LRScheduler):
    """A scheduler whose rate is set by probes: `eta <- 0.9 eta + 0.1 eta*`, constant in between.

    Args:
        optimizer: its groups keep their ratios; all are multiplied by one factor.
        minimum: lower bound of the factor times the largest base rate; `None` for none.
        maximum: upper bound likewise.
    """

    def __init__(self, optimizer: Optimizer, minimum: float | None = None, maximum: float | None = None) -> None:
        self.factor = 1.0
        self.minimum = minimum
        self.maximum = maximum
        super().__init__(optimizer)

    def get_lr(self) -> list[Any]:
        """The rates in force."""
        return [base * self.factor for base in self.base_lrs]

    def probed(self, ratio: float | None) -> None:
        """Take the outcome of a probe (`None` leaves the rate as it is); in force from the next `step` on."""
        if ratio is None:
            return
        self.factor *= SMOOTHING + (1 - SMOOTHING) * ratio
        base = float(max(self.base_lrs))
        if self.minimum is not None:
            self.factor = max(self.factor, self.minimum / base)
        if self.maximum is not None:
            self.factor = min(self.factor, self.maximum / base)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {name: value for name, value in super().state_dict().items() if name not in ("minimum", "maximum")}
