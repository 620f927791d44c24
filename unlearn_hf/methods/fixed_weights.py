"""Fixed weights: what GradDiff and NPO share."""

from __future__ import annotations

from dataclasses import dataclass

from unlearn_hf.common.options import option
from unlearn_hf.training.unlearning import UnlearningTrainer
from unlearn_hf.training.unlearning_config import UnlearningConfig


@dataclass
class FixedWeightsConfig(UnlearningConfig):
    """Arguments of methods whose two weights do not change."""

    forget_weight: float = option(1.0, "Weight of the forget loss; not negative.")
    retain_weight: float = option(1.0, "Weight of the retain loss; not negative.")

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a negative weight, or two weights of zero.
        """
        for name in ("forget_weight", "retain_weight"):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(
                    f"{name}: {value} is negative; losses are minimised, and gradient ascent is forget_loss: ga. "
                    "Give zero or more."
                )
        if self.forget_weight == self.retain_weight == 0:
            raise ValueError("forget_weight: 0 together with retain_weight 0 trains nothing; raise one of them.")
        super().__post_init__()


class FixedWeightsTrainer(UnlearningTrainer):
    """Minimise `forget_weight * l_f + retain_weight * l_r`."""

    config_class = FixedWeightsConfig
    args: FixedWeightsConfig

    def loss_weights(self) -> tuple[float, float]:
        """The two configured weights."""
        return self.args.forget_weight, self.args.retain_weight
