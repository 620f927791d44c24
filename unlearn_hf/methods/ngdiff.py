"""NGDiff: the two gradients at equal length, with an automatic learning rate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from unlearn_hf.common.checks import check_positive
from unlearn_hf.gradients.weightings import Weights, normalized_sum
from unlearn_hf.methods.automatic_learning_rate import AutomaticLearningRate, newton_ratio
from unlearn_hf.objectives import FORGET_OBJECTIVES
from unlearn_hf.training.config import UnlearningConfig
from unlearn_hf.training.optimizer_step import Losses
from unlearn_hf.training.unlearning import UnlearningTrainer


@dataclass
class NGDiffConfig(UnlearningConfig):
    """Arguments of `NGDiffTrainer`.

    `max_grad_norm` defaults to 0 (no clipping): the direction has a length between 0 and 2, so the usual 1.0 would
    clip most steps. `lr_scheduler_type` defaults to `constant`.
    """

    forget_loss: str = field(
        default="ga", metadata={"help": "Objective on the forget set.", "choices": FORGET_OBJECTIVES.keys()}
    )
    max_grad_norm: float = field(
        default=0.0, metadata={"help": "Gradient clipping; off, because the direction is normalised already."}
    )
    lr_scheduler_type: str = field(default="constant", metadata={"help": "Schedule of the learning rate."})
    autolr: bool = field(
        default=False,
        metadata={
            "help": "Set the learning rate from the curvature of the retain loss (GeN); replaces the scheduler."
        },
    )
    autolr_interval: int = field(
        default=10, metadata={"help": "Optimizer steps between two probes (two forward passes)."}
    )
    autolr_min: float | None = field(default=None, metadata={"help": "Lower bound of the automatic learning rate."})
    autolr_max: float | None = field(default=None, metadata={"help": "Upper bound of the automatic learning rate."})

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a number out of range, or AutoLR together with another schedule.
        """
        for name in ("autolr_interval", "autolr_min", "autolr_max"):
            check_positive(name, getattr(self, name))
        if self.autolr_min and self.autolr_max and self.autolr_min > self.autolr_max:
            raise ValueError(f"autolr_min: {self.autolr_min} is above autolr_max {self.autolr_max}; swap them.")
        super().__post_init__()
        schedule = getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type)
        if self.autolr and (schedule != "constant" or self.warmup_steps):
            raise ValueError(
                f"autolr: True sets the learning rate itself, and lr_scheduler_type {schedule!r} with warmup_steps "
                f"{self.warmup_steps} would fight it; use 'constant' and 0."
            )


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

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self._before_probe: list[tuple[torch.nn.Parameter, Tensor]] = []

    def gradient_weights(self, gram: Tensor | None, losses: Losses) -> Weights:
        """The inverse norms."""
        assert gram is not None
        return normalized_sum(gram)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """AutoLR is the scheduler, so that nothing else sets the rate and its state is saved and resumed."""
        if not self.args.autolr:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            self.lr_scheduler: Any = AutomaticLearningRate(
                optimizer or cast(torch.optim.Optimizer, self.optimizer), self.args.autolr_min, self.args.autolr_max
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    @property
    def _probes(self) -> bool:
        """Whether this step is a probing one."""
        return self.args.autolr and (self.state.global_step + 1) % self.args.autolr_interval == 0

    @property
    def remeasured(self) -> tuple[str, ...]:
        """The retain loss after a probing step; what is measured again has the dropout of the step."""
        return ("retain",) if self._probes else super().remeasured

    def before_step(self, losses: Losses) -> None:
        """Before a probing step, keep the parameters."""
        self._before_probe = []  # that of a step which a gradient scaler has skipped, say
        if self._probes:
            trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            self._before_probe = [(parameter, parameter.detach().clone()) for parameter in trained]

    @torch.no_grad()
    def after_step(self, before: Losses, after: Losses) -> None:
        """At a probing step, compare the retain loss before, after, and after the mirror image of the step."""
        if not self._before_probe:
            return
        for parameter, saved in self._before_probe:
            mirrored = 2 * saved - parameter
            saved.copy_(parameter)  # from here on the copy holds the parameters after the step
            parameter.copy_(mirrored)
        try:
            behind = self.loss_again("retain")
        finally:
            for parameter, saved in self._before_probe:
                parameter.copy_(saved)
        self._before_probe = []
        assert isinstance(self.lr_scheduler, AutomaticLearningRate)
        self.lr_scheduler.probed(newton_ratio(before.retain, after.retain, behind))
