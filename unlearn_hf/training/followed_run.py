"""What a trainer shows to those that follow its run: guards, probes, budgets, verdicts."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn


class FollowedRun(Protocol):
    """A fine-tuning or unlearning trainer; who needs more of it declares that on top."""

    args: Any
    accelerator: Any
    model: Any
    model_wrapped: Any
    processing_class: Any
    train_dataset: Any
    data_collator: Any
    state: Any
    control: Any
    window: Any
    packed: bool | None
    has_own_optimizer: bool
    divergence: str | None
    divergence_advice: str

    @property
    def is_deepspeed_enabled(self) -> bool:
        """Whether DeepSpeed holds the parameters."""

    def is_world_process_zero(self) -> bool:
        """Whether this process speaks for all."""

    def log(self, logs: dict[str, float]) -> None:
        """Log numbers."""

    def compute_loss_context_manager(self) -> Any:
        """The precision of a forward pass."""

    def _prepare_inputs(self, inputs: Any) -> Any: ...
    def _model_for_evaluation(self) -> nn.Module: ...
