"""Task vector: fine-tune on the forget set, and go the other way."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn_hf.common.checks import check_positive
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
class TaskVectorConfig(UnlearningConfig):
    """Arguments of `TaskVectorTrainer`; those of training are the ones of the fine-tuning."""

    can_stop: ClassVar[bool] = False

    forget_loss: str = field(
        default="ga", metadata={"help": "Fixed: the run descends on what `ga` ascends.", "choices": ["ga"]}
    )
    task_vector_scale: float = field(
        default=1.0, metadata={"help": "How far to go back from the model before, in task vectors; positive."}
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a scale that is not positive, or an option that would judge the fine-tuned model.
        """
        check_positive("task_vector_scale", self.task_vector_scale)
        if not math.isfinite(self.task_vector_scale):
            raise ValueError(f"task_vector_scale: {self.task_vector_scale} is not finite; give a number such as 1.")
        if self.forget_loss != "ga":
            raise ValueError(
                f"forget_loss: {self.forget_loss!r} has no meaning for method task_vector, which fine-tunes on the "
                "forget set; leave it out."
            )
        super().__post_init__()
        for name, neutral in _MEANINGLESS.items():
            value = getattr(getattr(self, name), "value", getattr(self, name))
            if value != neutral:
                raise ValueError(
                    f"{name}: {value!r} would judge the model fine-tuned on the forget set, not the one that comes "
                    "out; leave it out."
                )


class TaskVectorTrainer(UnlearningTrainer):
    """Negated task vector: `theta = theta_0 - scale * (theta_ft - theta_0)`, theta_ft fine-tuned on the forget set.

    Training descends on the forget rows' cross-entropy; the retain rows are not used. After the last step the trained
    parameters are set to the formula, so what is evaluated and saved is an ordinary model. A new adapter gets a
    negative weight: the `B` of each pair of matrices is multiplied by `-scale`, which is the formula for the product.
    Checkpoints hold the fine-tuned weights, so that a run can be resumed; theta_0 is the model it was begun with.

    A fine-tuning that diverged is not subtracted: the last fine-tuned weights that are sound stay, as told.

    The copy of theta_0 rests on the CPU. Sharded training, and an adapter that is trained already, are refused.

    Source: Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv 2212.04089 (negation).
    """

    config_class = TaskVectorConfig
    args: TaskVectorConfig
    copies_of_trained: ClassVar[int] = 1
    paper: ClassVar[dict[str, str]] = {
        "title": "Editing Models with Task Arithmetic",
        "url": "https://arxiv.org/abs/2212.04089",
        "citation": "Gabriel Ilharco et al. ICLR 2023.",
    }

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        if shards(self.accelerator):
            raise ValueError("method: task_vector keeps whole parameters to go back from; launch it with DDP.")
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and "lora_B" in name and parameter.any():
                raise ValueError(
                    "model: its adapter is trained already, and a task vector of a trained adapter is no adapter; "
                    "merge it into the base model first, or begin a new one."
                )
            if parameter.requires_grad and "lora_magnitude_vector" in name:
                raise ValueError("peft_config: DoRA's adapter has no negative; use LoRA without it.")

    def loss_weights(self) -> tuple[float, float]:
        """Descent on what gradient ascent ascends, and nothing of the retain rows."""
        return -1.0, 0.0

    def train(self, *positional: Any, **named: Any) -> Any:
        """Fine-tune, then put the negated task vector in the place of the parameters."""
        before = {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        found = super().train(*positional, **named)
        if self.divergence is None:
            self._negate(before)
        else:
            warnings.warn("The fine-tuning diverged, so it is not subtracted.", stacklevel=2)
        return found

    @torch.no_grad()
    def _negate(self, before: dict[str, Tensor]) -> None:
        scale = self.args.task_vector_scale
        for name, parameter in self.model.named_parameters():
            if name not in before or "lora_A" in name or "lora_embedding_A" in name:
                continue  # of a pair of matrices only one is negated
            start = before[name].to(parameter.device)
            parameter.copy_(start - scale * (parameter - start))
