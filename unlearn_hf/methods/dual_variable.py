"""A dual variable that an optimizer moves and that never leaves the non-negative numbers."""

from __future__ import annotations

import copy
from typing import Any

import torch


class DualVariable:
    """The multiplier of one inequality constraint, by projected dual ascent.

    Args:
        initial: value at the start, not negative.
        optimizer: `adam` (takes no unit: the first step has the size of `learning_rate`) or `sgd`.
        learning_rate: step size.
        weight_decay: coupled weight decay: `weight_decay * value` is added to the gradient.
    """

    def __init__(self, initial: float, optimizer: str, learning_rate: float, weight_decay: float = 0.0) -> None:
        self._parameter = torch.nn.Parameter(torch.tensor(float(initial), dtype=torch.float64))
        classes = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        self._optimizer = classes[optimizer]([self._parameter], lr=learning_rate, weight_decay=weight_decay)

    @property
    def value(self) -> float:
        """The multiplier."""
        return self._parameter.item()

    def descend(self, slack: float) -> None:
        """Move against `slack` (positive: the constraint holds with room to spare), and clamp at zero.

        The stored value itself is clamped; otherwise it would wind up below zero and react late.
        """
        self._parameter.grad = torch.tensor(slack, dtype=torch.float64)
        self._optimizer.step()
        with torch.no_grad():
            self._parameter.clamp_(min=0.0)

    def state_dict(self) -> dict[str, Any]:
        """Value and optimizer state."""
        return {"value": self.value, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state exactly."""
        with torch.no_grad():
            self._parameter.fill_(state["value"])
        # A copy, because the optimizer would go on to share the tensors it is given.
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
