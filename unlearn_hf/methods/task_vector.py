"""Task vector: fine-tune on the forget set, and go the other way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn_hf.common.options import option
from unlearn_hf.methods.forget_tuning import ForgetTuningConfig, ForgetTuningTrainer


@dataclass
class TaskVectorConfig(ForgetTuningConfig):
    """Arguments of `TaskVectorTrainer`; those of training are the ones of the fine-tuning."""

    task_vector_scale: float = option(
        1.0, "How far to go back from the model before, in task vectors; positive.", only="positive and finite"
    )


class TaskVectorTrainer(ForgetTuningTrainer):
    """Negated task vector: `theta = theta_0 - scale * (theta_ft - theta_0)`, theta_ft fine-tuned on the forget set.

    After the last step the trained parameters are set to the formula, so what is evaluated and saved is an ordinary
    model. A new adapter gets a negative weight: the `B` of each pair of matrices is multiplied by `-scale`, which is
    the formula for the product. An adapter that is trained already is refused, as is sharded training.

    Training descends on the forget rows' cross-entropy; the retain rows are not used. Checkpoints hold the fine-tuned
    weights, so that a run can be resumed; theta_0 is the model it was begun with, and a copy of it rests on the CPU.
    A fine-tuning that diverged is not subtracted: the last fine-tuned weights that are sound stay, as told.

    Source: Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv 2212.04089 (negation).
    """

    config_class = TaskVectorConfig
    args: TaskVectorConfig
    paper: ClassVar[dict[str, str]] = {
        "title": "Editing Models with Task Arithmetic",
        "url": "https://arxiv.org/abs/2212.04089",
        "citation": "Gabriel Ilharco et al. ICLR 2023.",
    }

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and "lora_B" in name and parameter.any():
                raise ValueError(
                    "model: its adapter is trained already, and a task vector of a trained adapter is no adapter; "
                    "merge it into the base model first, or begin a new one."
                )
            if parameter.requires_grad and "lora_magnitude_vector" in name:
                raise ValueError("peft_config: DoRA's adapter has no negative; use LoRA without it.")

    def kept_before(self) -> dict[str, Tensor]:
        """The parameters that are trained."""
        return {
            name: parameter.detach().to("cpu", copy=True)
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def finish_with(self, before: dict[str, Tensor]) -> None:
        """Put the negated task vector in the place of the parameters."""
        scale = self.args.task_vector_scale
        for name, parameter in self.model.named_parameters():
            if name not in before or "lora_A" in name or "lora_embedding_A" in name:
                continue  # of a pair of matrices only one is negated
            start = before[name].to(parameter.device)
            parameter.copy_(start - scale * (parameter - start))
