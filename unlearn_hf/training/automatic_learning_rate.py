"""AutoLR: the learning rate from the curvature of the retain loss along the actual update (GeN)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from unlearn_hf.common.options import option

SMOOTHING = 0.9


@dataclass
class AutomaticLearningRateArguments:
    """Options of AutoLR, which every method that unlearns has."""

    autolr: bool = option(
        False,
        "Set the learning rate from the curvature of the retain loss (GeN); replaces the scheduler, so "
        "lr_scheduler_type must be constant, without warm-up.",
    )
    autolr_interval: int = option(10, "Optimizer steps between two probes (two forward passes).", only="positive")
    autolr_min: float | None = option(None, "Lower bound of the automatic learning rate.", only="positive")
    autolr_max: float | None = option(None, "Upper bound of the automatic learning rate.", only="positive")


def check_automatic_learning_rate(args: Any) -> None:
    """Check the options of AutoLR in a configuration that is filled in otherwise.

    Raises:
        ValueError: for bounds that exclude each other, or AutoLR together with another schedule or with DeepSpeed.
    """
    if args.autolr_min and args.autolr_max and args.autolr_min > args.autolr_max:
        raise ValueError(f"autolr_min: {args.autolr_min} is above autolr_max {args.autolr_max}; swap them.")
    if not args.autolr:
        for name in ("autolr_min", "autolr_max"):
            if getattr(args, name) is not None:
                raise ValueError(f"{name}: {getattr(args, name)} has no meaning without autolr; leave it out.")
        return
    schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    if schedule != "constant" or args.warmup_steps:
        raise ValueError(
            f"autolr: True sets the learning rate itself, and lr_scheduler_type {schedule!r} with warmup_steps "
            f"{args.warmup_steps} would fight it; use 'constant' and 0."
        )
    if args.deepspeed:
        raise ValueError("autolr: True moves parameters that DeepSpeed keeps in other copies; use DDP or FSDP2.")


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


class _Trainer(Protocol):
    """What a probe needs of the trainer."""

    args: Any
    state: Any
    model: Any
    lr_scheduler: Any

    def loss_again(self, name: str) -> float: ...


class LearningRateProbe:
    """Compares the retain loss before a step, after it, and after its mirror image, and sets the next rate.

    Along the optimizer's actual update, on the same rows with the same dropout. Takes one copy of the trained
    parameters for the length of a probing step, and two forward passes (one where the method measures the retain loss
    after the step anyway).

    Args:
        trainer: the run; its scheduler is an `AutomaticLearningRate`.
    """

    def __init__(self, trainer: _Trainer) -> None:
        self.trainer = trainer
        self._before: list[tuple[nn.Parameter, Tensor]] = []

    @property
    def due(self) -> bool:
        """Whether this step is a probing one."""
        return bool((self.trainer.state.global_step + 1) % self.trainer.args.autolr_interval == 0)

    def begin(self) -> None:
        """Before the update: keep the parameters, where the step is a probing one."""
        self._before = []  # that of a step which a gradient scaler has skipped, say
        if self.due:
            trained = [parameter for parameter in self.trainer.model.parameters() if parameter.requires_grad]
            self._before = [(parameter, parameter.detach().clone()) for parameter in trained]

    @torch.no_grad()
    def finish(self, at: float, ahead: float) -> None:
        """After the update: measure its mirror image, put the parameters back, and set the rate.

        Args:
            at: the retain loss before the step.
            ahead: the retain loss after it.
        """
        if not self._before:
            return
        for parameter, saved in self._before:
            mirrored = 2 * saved - parameter
            saved.copy_(parameter)  # from here on the copy holds the parameters after the step
            parameter.copy_(mirrored)
        try:
            behind = self.trainer.loss_again("retain")
        finally:
            for parameter, saved in self._before:
                parameter.copy_(saved)
        self._before = []
        assert isinstance(self.trainer.lr_scheduler, AutomaticLearningRate)
        self.trainer.lr_scheduler.probed(newton_ratio(at, ahead, behind))
