"""The level at which a method holds the retain loss: absolute, or relative to the model before unlearning."""

from __future__ import annotations

from dataclasses import dataclass

from unlearn_hf.common.options import option
from unlearn_hf.training.retain_level import retain_loss_before_unlearning
from unlearn_hf.training.unlearning import UnlearningTrainer
from unlearn_hf.training.unlearning_config import UnlearningConfig


@dataclass
class BoundedRetainLossConfig(UnlearningConfig):
    """Arguments of methods that hold the retain loss at a level."""

    largest_retain_loss: float | None = option(
        None,
        "Retain loss to stay below, in nats per answer token. Default: the loss of the same rows before unlearning, "
        "plus retain_tolerance.",
        only="positive",
    )
    retain_tolerance: float = option(
        0.02, "Nats by which the retain loss may exceed its value before unlearning.", only="finite"
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a level that is not positive, or a tolerance that is not a number.
        """
        super().__post_init__()
        objective = self.retain_objective
        if self.largest_retain_loss is None and not (objective.is_nll or objective.zero_before_unlearning):
            raise ValueError(
                f"largest_retain_loss: missing; what retain_loss {self.retain_loss!r} was before unlearning is not "
                "known, so give the level."
            )


class BoundedRetainLossTrainer(UnlearningTrainer):
    """Knows the level for each step. Both sides are measured on the same rows, so sampling noise cancels."""

    config_class = BoundedRetainLossConfig
    args: BoundedRetainLossConfig

    @property
    def needs_retain_loss(self) -> bool:
        """It is compared with the level in every step."""
        return True

    @property
    def needs_retain_reference(self) -> bool:
        """Without an absolute level, the one before unlearning is needed (that of a distance from it is zero)."""
        relative = self.args.largest_retain_loss is None and self.retain_objective.is_nll
        return relative or super().needs_retain_reference

    def allowed_retain_loss(self) -> float:
        """The level for the rows of this step, in nats per token."""
        if self.args.largest_retain_loss is not None:
            return self.args.largest_retain_loss
        return retain_loss_before_unlearning(self) + self.args.retain_tolerance
