"""A dual variable that an optimizer moves and that never leaves the non-negative numbers."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch


class DualVariable:
    """The multiplier of one inequality constraint, by projected dual ascent.

    Args:
        initial: value at the start, not negative.
        optimizer: `adam` (takes no unit: the first step has the size of `learning_rate`) or `sgd`.
        learning_rate: step size.
        weight_decay: coupled weight decay: `weight_decay * integral` is added to the gradient.
        proportional: multiplier per unit of violation, on top of what the optimizer has summed up. A sum alone reacts
            late and stays high when the constraint holds again; this part is gone as soon as the violation is.
        maximum: upper bound of the multiplier.

    Source of the proportional part: Stooke et al., "Responsive Safety in Reinforcement Learning by PID Lagrangian
    Methods", ICML 2020, arXiv 2007.03964 (without its derivative part).
    """

    def __init__(
        self,
        initial: float,
        optimizer: str,
        learning_rate: float,
        weight_decay: float = 0.0,
        proportional: float = 0.0,
        maximum: float | None = None,
    ) -> None:
        self.proportional = proportional
        self.maximum = math.inf if maximum is None else maximum
        self._slack = 0.0
        self._parameter = torch.nn.Parameter(torch.tensor(float(initial), dtype=torch.float64))
        classes = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        self._optimizer = classes[optimizer]([self._parameter], lr=learning_rate, weight_decay=weight_decay)

    @property
    def value(self) -> float:
        """The multiplier: `[integral - proportional * slack]`, kept between zero and `maximum`."""
        return min(max(self.integral - self.proportional * self._slack, 0.0), self.maximum)

    @property
    def integral(self) -> float:
        """What the optimizer has summed up."""
        return self._parameter.item()

    def descend(self, slack: float) -> None:
        """Move against `slack` (positive: the constraint holds with room to spare).

        The stored integral itself is clamped; otherwise it would wind up beyond its bounds and react late. A slack
        that is not finite (an overflow) says nothing and moves nothing.
        """
        if not math.isfinite(slack):
            return
        self._slack = slack
        self._parameter.grad = torch.tensor(slack, dtype=torch.float64)
        self._optimizer.step()
        with torch.no_grad():
            self._parameter.clamp_(min=0.0, max=self.maximum)

    def state_dict(self) -> dict[str, Any]:
        """Integral, last slack and optimizer state."""
        return {"value": self.integral, "slack": self._slack, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state exactly."""
        with torch.no_grad():
            self._parameter.fill_(state["value"])
        self._slack = state.get("slack", 0.0)
        # A copy, because the optimizer would go on to share the tensors it is given.
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
