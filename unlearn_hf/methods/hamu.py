"""HAMU: the best update of bounded length that still advances the other objective by a set amount."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unlearn_hf.common.options import option
from unlearn_hf.gradients.weightings import Weights
from unlearn_hf.training.optimizer_step import Losses
from unlearn_hf.training.unlearning import UnlearningTrainer
from unlearn_hf.training.unlearning_config import UnlearningConfig

VARIANTS = ("Q", "U")
# Below this share of the squared norm, what is left of a gradient beside the other one is rounding in float32.
_PARALLEL = 1e-7


@dataclass
class HAMUConfig(UnlearningConfig):
    """Arguments of `HAMUTrainer`. `max_grad_norm` defaults to 0: the direction has the length `radius` already."""

    max_grad_norm: float = option(0.0, "Gradient clipping; off, because the direction has a bounded length already.")
    variant: str = option(
        "Q",
        "Q: harm the retain loss least while the forget loss falls by `progress`. U: lower the forget loss most "
        "while the retain loss falls by `progress`.",
        choices=VARIANTS,
    )
    radius: float = option(1.0, "Length of the direction, before the learning rate.", only="positive and finite")
    progress: float | None = option(
        None,
        "How much the constrained loss must fall to first order, per unit of learning rate (SGD). When radius times "
        "the norm of its gradient is less than this, the run ends. Default: 1 for Q, 0 for U; with U a negative "
        "value tolerates that much of a rise.",
        only="finite",
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for an unknown variant or a number out of range.
        """
        super().__post_init__()
        if self.variant == "Q" and self.progress is not None and self.progress <= 0:
            raise ValueError(f"progress: {self.progress} lets variant Q forget nothing; give a positive number.")

    def required_progress(self) -> float:
        """`progress`, or its default for the variant."""
        return self.progress if self.progress is not None else float(self.variant == "Q")


def constrained_weights(objective: float, cross: float, constraint: float, progress: float, radius: float) -> Weights:
    """Weights of `d`, `||d|| <= radius`, with `<g_c, d> >= progress` and `<g_o, d>` as large as possible.

    Let `g_o'` be the part of `g_o` at right angles to `g_c`. Then `d = radius g_o / ||g_o||` where that keeps the
    constraint, else `d = progress / ||g_c||^2 g_c + sqrt(radius^2 - progress^2 / ||g_c||^2) g_o' / ||g_o'||`. Where
    `g_o` is zero or parallel to `g_c`, the shortest of the solutions.

    Args:
        objective: `<g_o, g_o>`.
        cross: `<g_o, g_c>`.
        constraint: `<g_c, g_c>`.
        progress: what the constrained loss must fall by; negative for a tolerated rise.
        radius: greatest length, positive.

    Returns:
        The weights of `g_o` and `g_c`.

    Raises:
        ValueError: where no direction of that length is long enough (`progress > radius ||g_c||`).

    Source: HAMU, arXiv 2606.02119.
    """
    if progress > radius * math.sqrt(constraint):
        raise ValueError(f"progress: {progress:g} is out of reach, at most {radius * math.sqrt(constraint):g} is.")
    if objective > 0 and radius * cross >= progress * math.sqrt(objective):
        return radius / math.sqrt(objective), 0.0
    if constraint == 0:
        return 0.0, 0.0
    along = progress / constraint
    beside = objective - cross**2 / constraint
    if beside <= _PARALLEL * objective:
        return 0.0, along
    length = math.sqrt(max(radius**2 - progress**2 / constraint, 0.0) / beside)
    return length, along - length * cross / constraint


class HAMUTrainer(UnlearningTrainer):
    """The direction of length `radius` that is best for one loss while the other falls by `progress`, to first order.

    Variant Q: `max <g_r, d>` subject to `<g_f, d> >= progress` and `||d|| <= radius`; the retain loss rises least, or
    falls most, while the forget loss falls enough. Variant U exchanges the roles. Both weights follow from the Gram
    matrix (`constrained_weights`). The step is `-learning_rate * d` with SGD; under AdamW, `d` is what its moments are
    fed with, and the first-order statements hold for `d`, not for the step. When the constrained gradient has become
    too small for `progress`, nothing is feasible: the run ends before that step, and says so. That is the method's own
    stopping rule, not a failure.

    Source: HAMU, arXiv 2606.02119 (ICML 2026). Its code works on each tensor by itself or on the whole gradient; here
    it is the whole gradient. Our choices: the defaults of `radius` and `progress`, the negative `progress` of variant
    U, and the shortest solution where the gradients are parallel.
    """

    config_class = HAMUConfig
    args: HAMUConfig
    needs_gram: ClassVar[bool] = True
    paper: ClassVar[dict[str, str]] = {
        "title": "HAMU (ICML 2026)",
        "url": "https://arxiv.org/abs/2606.02119",
        "citation": "ICML 2026, arXiv 2606.02119.",
    }

    def gradient_weights(self, gram: Tensor, losses: Losses) -> Weights:
        """The closed form, or no update and the end of the run."""
        forget, cross, retain = gram[0, 0].item(), gram[0, 1].item(), gram[1, 1].item()
        norms = (retain, cross, forget) if self.args.variant == "Q" else (forget, cross, retain)
        try:
            objective, constraint = constrained_weights(*norms, self.args.required_progress(), self.args.radius)
        except ValueError as problem:
            constrained = "forget" if self.args.variant == "Q" else "retain"
            self.end_run(f"no update of length {self.args.radius:g} lowers the {constrained} loss enough; {problem}")
            return 0.0, 0.0
        return (constraint, objective) if self.args.variant == "Q" else (objective, constraint)
