"""PDU: a dual variable on the level of the retain loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from unlearn_hf.common.options import option
from unlearn_hf.methods.bounded_retain_loss import BoundedRetainLossConfig, BoundedRetainLossTrainer
from unlearn_hf.methods.dual_variable import DualVariable
from unlearn_hf.objectives import FORGET_OBJECTIVES
from unlearn_hf.training.optimizer_step import Losses


@dataclass
class PDUConfig(BoundedRetainLossConfig):
    """Arguments of `PDUTrainer`."""

    forget_loss: str = option("logit_margin", "Objective on the forget set.", choices=FORGET_OBJECTIVES.keys())
    dual_learning_rate: float = option(1.0, "Step size of the dual variable, per nat.", only="positive")
    initial_dual: float = option(1.0, "Dual variable at the start, and during warm-up.", only="not negative")
    dual_warmup_epochs: int = option(0, "Epochs before the dual variable begins to move.", only="not negative")


class PDUTrainer(BoundedRetainLossTrainer):
    """Primal-dual unlearning: minimise `l_f + dual * l_r` with `dual <- max(0, dual + step * (l_r - level))`.

    Forgetting under the constraint `l_r <= level`. The dual moves after every optimizer step by the retain loss of
    that step, which costs no further pass over the rows. (EUPMU with `constraint: level` looks
    at the loss after the step, relative to the model before unlearning.)

    Source: Entesari et al., "Constrained Entropic Unlearning: A Primal-Dual Framework for Large Language Models",
    arXiv 2506.05314; step size 1, dual 1 at the start, update per step and warm-up follow the released code. Our
    choices: without `largest_retain_loss` the level is the loss of the same rows before unlearning plus
    `retain_tolerance`; the dual moves once per step, over all ranks. `logit_margin`, the default, is the paper's loss.
    """

    config_class = PDUConfig
    args: PDUConfig
    paper: ClassVar[dict[str, str]] = {
        "title": "Constrained Entropic Unlearning: A Primal-Dual Framework for Large Language Models",
        "url": "https://arxiv.org/abs/2506.05314",
        "citation": "Taha Entesari, Arman Hatami, Rinat Khaziev, Anil Ramakrishna, Mahyar Fazlyab. 2025.",
    }

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self.dual = DualVariable(self.args.initial_dual, "sgd", self.args.dual_learning_rate)
        self._dual_in_force = self.dual.value

    def loss_weights(self) -> tuple[float, float]:
        """`(1, dual)`."""
        self._dual_in_force = self.dual.value
        return 1.0, self._dual_in_force

    def after_step(self, before: Losses, after: Losses) -> None:
        """Move the dual variable by how far the retain loss is above its level."""
        if int(self.state.epoch or 0) >= self.args.dual_warmup_epochs:
            self.dual.descend(self.allowed_retain_loss() - before.retain)

    def measurements(self) -> dict[str, float]:
        """The dual variable in force in this step."""
        return {"dual_variable": self._dual_in_force}

    def method_state(self) -> dict[str, Any]:
        """The dual variable."""
        return {"dual": self.dual.state_dict()}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Restore the dual variable exactly."""
        self.dual.load_state_dict(state["dual"])
