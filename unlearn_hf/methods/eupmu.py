"""EUPMU: implicit gradient surgery, from one gradient of the weighted sum of both losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from unlearn_hf.common.options import option
from unlearn_hf.methods.dual_variable import DualVariable
from unlearn_hf.training.optimizer_step import Losses
from unlearn_hf.training.unlearning import UnlearningTrainer
from unlearn_hf.training.unlearning_config import UnlearningConfig

CONSTRAINTS = ("step", "level")
SIGNALS = ("log", "raw")
SCALARIZATIONS = ("sum", "normalized", "log")
DUAL_OPTIMIZERS = ("adam", "sgd")


@dataclass
class EUPMUConfig(UnlearningConfig):
    """Arguments of `EUPMUTrainer`."""

    epsilon: float = option(
        0.0,
        "Tolerated rise of the retain loss, in the paper's sign: positive tolerates, negative demands an improvement "
        "(the released code's `error` is -epsilon). constraint level: since before unlearning; 0.02 means that the "
        "retain loss may be 1.02 times what it was (dual_signal raw: 0.02 nats per token). constraint step: in one "
        "step, as a change of log l_r (raw: of l_r), per unit of learning rate with per_learning_rate.",
        only="finite",
    )
    constraint: str = option(
        "step",
        "step: bound the change of the retain loss in each step (the paper). level: bound its rise since before "
        "unlearning, as `level_estimate` measures it.",
        choices=CONSTRAINTS,
    )
    dual_signal: str = option("log", "Measure changes of log l_r (relative) or of l_r itself (nats).", choices=SIGNALS)
    scalarization: str = option(
        "sum",
        "What is minimised: sum l_f + dual l_r; normalized (l_f + dual l_r)/(1 + dual); log: log l_f + dual log l_r "
        "(needs a positive forget loss; a loss below 1e-12 counts as 1e-12).",
        choices=SCALARIZATIONS,
    )
    dual_optimizer: str = option("adam", "What moves the dual variable.", choices=DUAL_OPTIMIZERS)
    dual_learning_rate: float = option(0.3, "Step size of the dual variable (beta in Eq. 8).", only="positive")
    dual_weight_decay: float | None = option(
        None,
        "Coupled weight decay of the dual variable. Default: 0.01 with adam (the released code), 0 with sgd (Eq. 8).",
        only="not negative",
    )
    dual_proportional: float | None = option(
        None,
        "Part of the dual variable that is proportional to the violation measured last, beside the part that sums "
        "violations up. Default: 0 with constraint step, 30 with level.",
        only="not negative",
    )
    maximum_dual: float | None = option(None, "Upper bound of the dual variable. Default: none.", only="positive")
    per_learning_rate: bool = option(False, "Divide the change of the retain loss by the learning rate, as in Eq. 8.")
    initial_dual: float = option(
        1.0,
        "Dual variable in the first step; 0 (the paper) makes the first steps pure forgetting.",
        only="not negative",
    )
    reevaluate: bool = option(
        True,
        "Measure the retain loss again after each step (one forward pass). False is the released 'fast' form: this "
        "step's loss is compared with the last step's, on different rows. Of no effect with constraint level and "
        "level_estimate probe.",
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for an unknown option, a number out of range, or options that exclude each other.
        """
        super().__post_init__()
        level = self.constraint == "level"
        if self.dual_proportional is None:
            self.dual_proportional = 30.0 if level else 0.0
        if self.dual_weight_decay is None:
            self.dual_weight_decay = 0.01 if self.dual_optimizer == "adam" else 0.0
        if self.maximum_dual is not None and self.initial_dual > self.maximum_dual:
            raise ValueError(
                f"initial_dual: {self.initial_dual} is above maximum_dual {self.maximum_dual}; lower the one or raise "
                "the other."
            )
        if level and self.dual_signal == "log" and self.epsilon <= -1:
            raise ValueError(f"epsilon: {self.epsilon} asks for a retain loss of zero or less; give more than -1.")
        if level and self.per_learning_rate:
            raise ValueError("per_learning_rate: True has no meaning for constraint 'level'; use constraint 'step'.")
        if self.scalarization == "log":
            self.check_logarithms("scalarization 'log' (not 'sum')")
        probed = level and self.level_estimate == "probe"
        if level and not (probed or self.retain_objective.is_nll or self.retain_objective.zero_before_unlearning):
            raise ValueError(
                f"level_estimate: {self.level_estimate!r} follows retain_loss {self.retain_loss!r}, whose value "
                "before unlearning is not known; use level_estimate 'probe'."
            )
        if self.dual_signal == "log" and self.retain_objective.zero_before_unlearning and not probed:
            raise ValueError(
                f"dual_signal: 'log' of retain_loss {self.retain_loss!r} does not exist at the start, where it is "
                "zero; use dual_signal 'raw' or retain_loss 'nll'."
            )


class EUPMUTrainer(UnlearningTrainer):
    r"""Implicit gradient surgery: minimise `l_f + dual * l_r`, where the dual follows the observed retain loss.

    Forgetting under a bounded increase of the utility loss,
    `d_t = argmin_d 1/2 ||d - g_f||^2  s.t.  <g_r, d> >= -epsilon`, is solved by projected dual ascent with `<g_r, d>`
    replaced by what really happened to the retain loss on the same batch:

    `slack_t = (l_r(theta_t) - l_r(theta_{t+1})) [/ alpha_t] + epsilon`,  `dual_{t+1} = [dual_t - beta slack_t]_+`.

    A step costs one backward pass of each set, and one forward pass on the retain batch after it. The first dual in
    force is `initial_dual`. What runs by default is not this equation to the letter, but the released code's choices;
    the equation is `configs/tofu/eupmu_eq8.yaml` (docs/eupmu.md).

    With `scalarization="log"` the weights are `1 / l_f` and `dual / l_r`, with losses of at least 1e-12: below that a
    loss is no longer followed. The log signal has the same floor. This scalarisation and the fast form know the
    weights only after the losses of the whole step, so the two gradients are kept apart, at the cost of one more copy
    of them.

    With `constraint="level"` the retain loss may not rise above `(1 + epsilon) l_r(theta_0)`: the slack is
    `log(1 + epsilon) + log l_r(theta_0) - log l_r(theta_{t+1})` (raw: `l_r(theta_0) + epsilon - l_r(theta_{t+1})`),
    both losses as `level_estimate` measures them. A sum over a level reacts late, overshoots and stays high, so the
    dual in force is `[dual_t - dual_proportional slack_t]_+` there. It moves whenever there is a new measurement.

    Source: Zhou et al., "Efficient Utility-Preserving Machine Unlearning with Implicit Gradient Surgery",
    NeurIPS 2025, arXiv 2510.22124, equation 8. Where paper and released code disagree: `epsilon` has the paper's
    sign; Adam with weight decay 0.01 on the log signal follows the code; the stored dual is clamped at zero.
    """

    config_class = EUPMUConfig
    args: EUPMUConfig
    paper: ClassVar[dict[str, str]] = {
        "title": "Efficient Utility-Preserving Machine Unlearning with Implicit Gradient Surgery",
        "url": "https://arxiv.org/abs/2510.22124",
        "citation": "Zhou et al. NeurIPS 2025.",
    }

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self.dual = DualVariable(
            self.args.initial_dual,
            self.args.dual_optimizer,
            self.args.dual_learning_rate,
            self.args.dual_weight_decay or 0.0,
            self.args.dual_proportional or 0.0,
            self.args.maximum_dual,
        )
        # In the fast form: the retain loss of the step before, and the learning rate of its update.
        self._last_retain_loss: float | None = None
        self._last_rate = 0.0
        self._dual_in_force = self.dual.value

    @property
    def _updates_first(self) -> bool:
        """The fast step form: the dual moves on this step's loss, before it is used."""
        return self.args.constraint == "step" and not self.args.reevaluate

    @property
    def gradient_level(self) -> bool:
        """The weights depend on this step's losses: with log scalarisation, and in the fast form."""
        return self.args.scalarization == "log" or self._updates_first

    @property
    def follows_retain_level(self) -> bool:
        """The level constraint follows it."""
        return self.args.constraint == "level" or super().follows_retain_level

    @property
    def remeasured(self) -> tuple[str, ...]:
        """One forward pass after the step, except in the fast form, and where a probe measures instead."""
        probed = self.args.constraint == "level" and self.args.level_estimate == "probe"
        return ("retain",) if self.args.reevaluate and not probed else super().remeasured

    def loss_weights(self) -> tuple[float, float]:
        """`(1, dual)`, divided by `1 + dual` when normalized."""
        dual = self._dual_in_force = self.dual.value
        return (1 / (1 + dual), dual / (1 + dual)) if self.args.scalarization == "normalized" else (1.0, dual)

    def gradient_weights(self, gram: Tensor | None, losses: Losses) -> tuple[float, float]:
        """The same weights with this step's losses known: `(1 / l_f, dual / l_r)` for log scalarisation."""
        if self._updates_first:
            if self._last_retain_loss is not None:
                self.dual.descend(self._slack(self._last_retain_loss, losses.retain, self._last_rate))
            self._last_retain_loss, self._last_rate = losses.retain, self._get_learning_rate()
        forget, retain = self.loss_weights()
        if self.args.scalarization != "log":
            return forget, retain
        return forget / max(losses.forget, _SMALLEST), retain / max(losses.retain, _SMALLEST)

    def after_step(self, before: Losses, after: Losses) -> None:
        """Move the dual variable by what the step did to the retain loss."""
        if self._updates_first:
            return
        if self.args.constraint == "level":
            level = self.retain_level
            assert level is not None
            if level.step == self.state.global_step + 1:
                assert level.base is not None
                assert level.current is not None
                self.dual.descend(self._slack(level.base, level.current))
        else:
            self.dual.descend(self._slack(before.retain, after.retain, self._get_learning_rate()))

    def _slack(self, earlier: float, later: float, rate: float = 0.0) -> float:
        """How much less than is tolerated the signal has risen from `earlier` to `later`, in a step of `rate`."""
        if self.args.dual_signal == "log":
            change = math.log(max(earlier, _SMALLEST)) - math.log(max(later, _SMALLEST))
        else:
            change = earlier - later
        if self.args.per_learning_rate:
            change = change / rate if rate > 0 else 0.0
        relative = self.args.constraint == "level" and self.args.dual_signal == "log"
        return change + (math.log1p(self.args.epsilon) if relative else self.args.epsilon)

    def measurements(self) -> dict[str, float]:
        """The dual variable in force in this step."""
        return {"dual_variable": self._dual_in_force}

    def method_state(self) -> dict[str, Any]:
        """Dual variable, its optimizer, and the last retain loss with the rate of its step."""
        state = {"last_retain_loss": self._last_retain_loss, "last_rate": self._last_rate}
        return {"dual": self.dual.state_dict(), **state}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Restore the dual variable exactly."""
        self.dual.load_state_dict(state["dual"])
        self._last_retain_loss = state["last_retain_loss"]
        self._last_rate = state.get("last_rate", 0.0)


_SMALLEST = 1e-12
