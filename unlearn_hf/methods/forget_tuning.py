"""What methods share that fine-tune on the forget set, and make of that the model that forgets it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

from unlearn_hf.common.options import option
from unlearn_hf.models.sharding import shards
from unlearn_hf.training.unlearning import UnlearningTrainer
from unlearn_hf.training.unlearning_config import UnlearningConfig

# What says nothing about the model that the run ends with, which exists only after the last step.
_MEANINGLESS = {
    "retain_budget": None,
    "autolr": False,
    "load_best_model_at_end": False,
    "eval_strategy": "no",
    "stop_when": None,
}


@dataclass
class ForgetTuningConfig(UnlearningConfig):
    """Arguments of `ForgetTuningTrainer`; those of training are the ones of the fine-tuning."""

    can_stop: ClassVar[bool] = False

    forget_loss: str = option("ga", "Fixed: the run descends on what `ga` ascends.", choices=["ga"])

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for another forget loss, or an option that would judge the fine-tuned model.
        """
        if self.forget_loss != "ga":
            raise ValueError(
                f"forget_loss: {self.forget_loss!r} has no meaning for this method, which fine-tunes on the forget "
                "set; leave it out."
            )
        super().__post_init__()
        for name, neutral in _MEANINGLESS.items():
            value = getattr(getattr(self, name), "value", getattr(self, name))
            if value != neutral:
                raise ValueError(
                    f"{name}: {value!r} would judge the model fine-tuned on the forget set, not the one that comes "
                    "out; leave it out."
                )


class ForgetTuningTrainer(UnlearningTrainer):
    """Descends on the forget rows' cross-entropy without the retain rows, then makes the model that forgets them.

    A method says by `finish_with` what becomes of the fine-tuned model. Checkpoints hold the fine-tuned weights, so
    that a run can be resumed; the model before is the one it was begun with. A fine-tuning that diverged is not used:
    the last fine-tuned weights that are sound stay, as told. Sharded training is refused.
    """

    config_class = ForgetTuningConfig
    args: ForgetTuningConfig
    copies_of_trained: ClassVar[int] = 1
    uses_retain_rows: ClassVar[bool] = False

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        if shards(self.accelerator):
            raise ValueError("method: it keeps whole parameters of the model before; launch it with DDP.")

    def loss_weights(self) -> tuple[float, float]:
        """Descent on what gradient ascent ascends, and nothing of the retain rows."""
        return -1.0, 0.0

    def kept_before(self) -> Any:
        """What is kept of the model before, on the CPU."""
        raise NotImplementedError

    def finish_with(self, before: Any) -> None:
        """Make the model that forgets of the fine-tuned one and what was kept before."""
        raise NotImplementedError

    def train(self, *positional: Any, **named: Any) -> Any:
        """Fine-tune, then let the method put the model that forgets in the place of the fine-tuned one."""
        before = self.kept_before()
        found = super().train(*positional, **named)
        if self.divergence is None:
            self.finish_with(before)
        else:
            warnings.warn(
                "The fine-tuning diverged, so it is not used; its last sound weights are left, which may know the "
                "rows better than before.",
                stacklevel=2,
            )
        return found
