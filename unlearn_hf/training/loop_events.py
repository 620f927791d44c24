"""The events of transformers' loop, as methods of our trainers."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class LoopEvents(TrainerCallback):
    """Tells a trainer, by the methods that `CheckpointedTrainer` ends with, what its loop has come to."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        """Model and optimizer are wrapped and restored."""
        self.trainer.training_begins()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A pass over the rows begins, or goes on: a resumed state carries the fraction already done."""
        self.trainer.epoch_begins(int(state.epoch or 0))

    def on_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
        """Parameters are new, gradients still there."""
        self.trainer.optimizer_stepped()

    def on_step_end(self, *_: Any, **kwargs: Any) -> None:
        """The step is over, and counted."""
        self.trainer.step_ended()

    def on_epoch_end(self, *_: Any, **kwargs: Any) -> None:
        """A pass over the rows is over."""
        self.trainer.epoch_ended()

    def on_save(self, *_: Any, **kwargs: Any) -> None:
        """This rank has written its part of a checkpoint."""
        self.trainer.checkpoint_saved()

    def on_train_end(self, *_: Any, **kwargs: Any) -> None:
        """The loop is over."""
        self.trainer.training_ended()
