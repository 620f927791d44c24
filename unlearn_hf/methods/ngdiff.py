"""NGDiff: the two gradients at equal length, with an automatic learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unlearn_hf.common.options import option
from unlearn_hf.gradients.weightings import Weights, normalized_sum
from unlearn_hf.objectives import FORGET_OBJECTIVES
from unlearn_hf.training.optimizer_step import Losses
from unlearn_hf.training.unlearning import UnlearningTrainer
from unlearn_hf.training.unlearning_config import UnlearningConfig


@dataclass
class NGDiffConfig(UnlearningConfig):
    """Arguments of `NGDiffTrainer`.

    `max_grad_norm` defaults to 0 (no clipping): the direction has a length between 0 and 2, so the usual 1.0 would
    clip most steps. `lr_scheduler_type` defaults to `constant`.
    """

    forget_loss: str = option("ga", "Objective on the forget set.", choices=FORGET_OBJECTIVES.keys())
    max_grad_norm: float = option(0.0, "Gradient clipping; off, because the direction is normalised already.")
    lr_scheduler_type: str = option("constant", "Schedule of the learning rate.")


class NGDiffTrainer(UnlearningTrainer):
    """Normalised gradient difference: `d = g_r / ||g_r|| + g_f / ||g_f||`, two backward passes, no weight to tune.

    `g_f` is the gradient of the minimised forget objective; for gradient ascent this is the paper's
    `g_R/||g_R|| - g_F/||g_F||`. One norm over all trained parameters, taken after accumulation and reduction over
    ranks. To first order the retain loss falls and the forgetting advances in every step.

    Source: Bu, Jin et al., "Unlearning as multi-task optimization: a normalized gradient difference approach with an
    adaptive learning rate", NAACL 2025, arXiv 2410.22086. AutoLR: GeN, arXiv 2407.02772, on the retain loss along the
    optimizer's actual update: the same rows and the same dropout before the step, after it and after its mirror image.
    Smoothing and clipping are GeN's; whether NGDiff's authors keep them is not known.
    """

    config_class = NGDiffConfig
    args: NGDiffConfig
    needs_gram: ClassVar[bool] = True
    paper: ClassVar[dict[str, str]] = {
        "title": "Unlearning as multi-task optimization: a normalized gradient difference approach with an adaptive "
        "learning rate",
        "url": "https://arxiv.org/abs/2410.22086",
        "citation": "Zhiqi Bu, Xiaomeng Jin et al. NAACL 2025.",
    }

    def gradient_weights(self, gram: Tensor, losses: Losses) -> Weights:
        """The inverse norms."""
        return normalized_sum(gram)
