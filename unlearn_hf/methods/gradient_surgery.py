"""Explicit gradient surgery: weights from the Gram matrix of the two gradients."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unlearn_hf.common.checks import check_choice
from unlearn_hf.common.options import option
from unlearn_hf.gradients.weightings import WEIGHTINGS, Weights, torchjd_weighting
from unlearn_hf.training.optimizer_step import Losses
from unlearn_hf.training.unlearning import UnlearningTrainer
from unlearn_hf.training.unlearning_config import UnlearningConfig

# parameters of the rules, with their defaults
RULE_PARAMETERS = {"epsilon": 0.0, "forget_weight": 1.0, "retain_weight": 1.0}


@dataclass
class GradientSurgeryConfig(UnlearningConfig):
    """Arguments of `GradientSurgeryTrainer`."""

    rule: str = option("unilateral", f"{', '.join(WEIGHTINGS)}, or `torchjd:NAME` for a Gram weighting of TorchJD.")
    epsilon: float = option(
        0.0,
        "unilateral: how far `<g_r, d>` may fall below zero before the forget gradient is altered; the retain loss "
        "may rise by the learning rate times this in a step. Not negative.",
        only="not negative and finite",
    )

    forget_weight: float = option(
        1.0, "one_sided_pcgrad: weight of the forget gradient.", only="not negative and finite"
    )
    retain_weight: float = option(
        1.0, "one_sided_pcgrad: weight of the retain gradient.", only="not negative and finite"
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for an unknown rule, or a parameter of the rule that is negative or of no use.
        """
        super().__post_init__()
        if self.rule.startswith("torchjd:"):
            torchjd_weighting(self.rule.removeprefix("torchjd:"))
        else:
            check_choice("rule", self.rule, [*WEIGHTINGS, "torchjd:NAME"])
        for name, default in RULE_PARAMETERS.items():
            value = getattr(self, name)
            if value != default and name not in self._parameters():
                raise ValueError(f"{name}: {value} has no meaning for rule {self.rule!r}; leave it out.")
        if self.rule == "one_sided_pcgrad" and self.forget_weight == 0:
            raise ValueError("forget_weight: 0 forgets nothing; give a positive number.")

    def _parameters(self) -> dict[str, float]:
        """The parameters that the rule takes."""
        function = WEIGHTINGS.get(self.rule)
        taken = inspect.signature(function).parameters if function is not None else {}
        return {name: getattr(self, name) for name in RULE_PARAMETERS if name in taken}

    def weighting(self) -> Callable[[Tensor], Weights]:
        """The function from Gram matrix to weights."""
        if self.rule.startswith("torchjd:"):
            return torchjd_weighting(self.rule.removeprefix("torchjd:"))
        return functools.partial(WEIGHTINGS[self.rule], **self._parameters())


class GradientSurgeryTrainer(UnlearningTrainer):
    """Explicit gradient surgery: two backward passes, one direction from the Gram matrix.

    The default rule alters the forget gradient only, and only when its first-order damage to the retain loss exceeds
    `epsilon`: `d = g_f + max(0, (-<g_r, g_f> - epsilon) / ||g_r||^2) g_r`. Nothing pulls the retain loss back down, so
    damage of higher order accumulates. The other rules weigh both gradients.

    Source: Zhou et al., NeurIPS 2025, arXiv 2510.22124, proposition 3.2; the other rules name theirs.
    """

    config_class = GradientSurgeryConfig
    args: GradientSurgeryConfig
    needs_gram: ClassVar[bool] = True
    paper: ClassVar[dict[str, str]] = {
        "title": "Efficient Utility-Preserving Machine Unlearning with Implicit Gradient Surgery",
        "url": "https://arxiv.org/abs/2510.22124",
        "citation": "Zhou et al. NeurIPS 2025 (explicit form, proposition 3.2).",
    }

    def gradient_weights(self, gram: Tensor, losses: Losses) -> Weights:
        """The configured rule."""
        return self.args.weighting()(gram)
