"""GradDiff: gradient ascent on the forget set, descent on the retain set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unlearn_hf.common.options import option
from unlearn_hf.methods.fixed_weights import FixedWeightsConfig, FixedWeightsTrainer
from unlearn_hf.objectives import FORGET_OBJECTIVES


@dataclass
class GradDiffConfig(FixedWeightsConfig):
    """Arguments of `GradDiffTrainer`."""

    forget_loss: str = option("ga", "Objective on the forget set.", choices=FORGET_OBJECTIVES.keys())


class GradDiffTrainer(FixedWeightsTrainer):
    """Gradient difference: descend `forget_weight * (-CE_f) + retain_weight * CE_r`.

    The forget term is unbounded: with too large a learning rate or too many steps the model collapses.

    Source: Liu et al., "Continual Learning and Private Unlearning", CoLLAs 2022, arXiv 2203.12817; as a language-model
    baseline: Maini et al., "TOFU", COLM 2024, arXiv 2401.06121, section 3.
    """

    config_class = GradDiffConfig
    paper: ClassVar[dict[str, str]] = {
        "title": "Continual Learning and Private Unlearning",
        "url": "https://arxiv.org/abs/2203.12817",
        "citation": "Bo Liu, Qiang Liu, Peter Stone. CoLLAs 2022.",
    }
