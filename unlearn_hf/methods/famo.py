"""FAMO: both losses brought down at the same relative rate."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn_hf.common.options import option
from unlearn_hf.training.optimizer_step import Losses
from unlearn_hf.training.unlearning import UnlearningTrainer
from unlearn_hf.training.unlearning_config import UnlearningConfig

_SMALLEST = 1e-8


@dataclass
class FAMOConfig(UnlearningConfig):
    """Arguments of `FAMOTrainer`."""

    logit_learning_rate: float = option(0.025, "Step size of Adam on the two logits.", only="positive")
    logit_weight_decay: float = option(
        1e-3, "Coupled weight decay of the logits: how strongly they return to equality.", only="not negative"
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a number out of range, or a loss whose logarithm does not exist.
        """
        super().__post_init__()
        self.check_logarithms("FAMO")


class LogitWeights:
    """Two weights on the simplex, `z = softmax(w)`, moved by how much each loss has fallen.

    Args:
        learning_rate: step size of Adam on the logits w.
        weight_decay: coupled weight decay of the logits.
    """

    def __init__(self, learning_rate: float, weight_decay: float) -> None:
        self._logits = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self._optimizer = torch.optim.Adam([self._logits], lr=learning_rate, weight_decay=weight_decay)

    @property
    def values(self) -> Tensor:
        """z, `[2]` float64."""
        return self._logits.detach().softmax(0)

    def update(self, before: Losses, after: Losses) -> None:
        """One step against the gradient of `<z, log before - log after>`: less weight to what fell faster.

        A loss that is not finite (an overflow) says nothing and moves nothing.
        """
        if not all(map(math.isfinite, (*before, *after))):
            return
        fall = [math.log(max(b, _SMALLEST)) - math.log(max(a, _SMALLEST)) for b, a in zip(before, after, strict=True)]
        with torch.enable_grad():
            objective = self._logits.softmax(0) @ torch.tensor(fall, dtype=torch.float64)
            (self._logits.grad,) = torch.autograd.grad(objective, self._logits)
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Logits and optimizer state."""
        return {"logits": self._logits.detach().clone(), "optimizer": copy.deepcopy(self._optimizer.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state exactly."""
        with torch.no_grad():
            self._logits.copy_(state["logits"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))


class FAMOTrainer(UnlearningTrainer):
    """Fast adaptive multitask optimisation: `d = c (z_f / l_f g_f + z_r / l_r g_r)`, weights that add up to one.

    `c = 1 / (z_f / l_f + z_r / l_r)` and `z = softmax(w)`. After the step both losses are measured again on the same
    batch, and `w` takes a step of Adam along `J^T (log l before - log l after)`, J the Jacobian of the softmax: the
    loss that falls more slowly gains weight. Two further forward passes a step; because the weights are known only
    after both losses of the whole step, the two gradients are kept apart.

    Relative progress never ends: while an NPO loss goes to zero its logarithm keeps falling, so forgetting does not
    stop by itself as it does under fixed weights.

    Source: Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, arXiv 2306.03792, algorithm 2 with
    lower bounds of zero.
    """

    config_class = FAMOConfig
    args: FAMOConfig
    paper: ClassVar[dict[str, str]] = {
        "title": "FAMO: Fast Adaptive Multitask Optimization",
        "url": "https://arxiv.org/abs/2306.03792",
        "citation": "Bo Liu, Yihao Feng, Peter Stone, Qiang Liu. NeurIPS 2023.",
    }

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self.simplex = LogitWeights(self.args.logit_learning_rate, self.args.logit_weight_decay)

    @property
    def gradient_level(self) -> bool:
        """The weights depend on this step's losses."""
        return True

    @property
    def remeasured(self) -> tuple[str, ...]:
        """Both losses, one forward pass each."""
        return "forget", "retain"

    def gradient_weights(self, gram: Tensor | None, losses: Losses) -> tuple[float, float]:
        """`z / l`, scaled to add up to one."""
        forget, retain = (
            self.simplex.values / torch.tensor(losses, dtype=torch.float64).clamp(min=_SMALLEST)
        ).tolist()
        return forget / (forget + retain), retain / (forget + retain)

    def after_step(self, before: Losses, after: Losses) -> None:
        """Move the logits by what the step did to both losses."""
        self.simplex.update(before, after)

    def measurements(self) -> dict[str, float]:
        """The softmax weight of forgetting."""
        return {"forget_share": self.simplex.values[0].item()}

    def method_state(self) -> dict[str, Any]:
        """Logits and their optimizer."""
        return {"simplex": self.simplex.state_dict()}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Restore the logits exactly."""
        self.simplex.load_state_dict(state["simplex"])
