"""A `Trainer` that loses no work: checkpoints that are known to be whole, one run in a folder, care on full disks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unlearn_hf.common.locks import held_folder
from unlearn_hf.training.checkpoints import (
    begin_checkpoint,
    damage,
    drop_checkpoints,
    finish_checkpoint,
    newest_complete_checkpoint,
)


class CheckpointedTrainer(Trainer):
    """Writes checkpoints with a manifest, and deletes an older one only when the newer is whole.

    Attributes:
        checkpoint_files: what a checkpoint of this trainer must hold beyond what every one does.
    """

    checkpoint_files: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._checkpoint: Path | None = None
        self.add_callback(_CheckpointCallback(self))

    def checkpoint_to_resume(self, wanted: str | bool | None) -> str | None:
        """The checkpoint that is named, or, for `True`, the newest intact one in the output folder.

        Raises:
            ValueError: when it is damaged, or there is none.
        """
        if not wanted:
            return None
        if wanted is True:
            return str(newest_complete_checkpoint(Path(str(self.args.output_dir)), self.checkpoint_files))
        if problem := damage(Path(wanted), self.checkpoint_files):
            raise ValueError(
                f"resume_from_checkpoint: {str(wanted)!r} is no checkpoint to resume from, because {problem}; name "
                "another one, or True for the newest intact one."
            )
        return str(wanted)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train.

        Args:
            resume_from_checkpoint: a checkpoint folder, or `True` for the newest intact one in the output folder.
            *args: passed on to `Trainer.train`.
            **kwargs: passed on to `Trainer.train`.

        Raises:
            ValueError: when there is no intact checkpoint to resume from, or another process works in the output
                folder.
        """
        with self._alone_in_folder():
            checkpoint = self.checkpoint_to_resume(resume_from_checkpoint)
            # transformers would delete the older checkpoint before the newer one is known to be whole.
            limit, self.args.save_total_limit = self.args.save_total_limit, None
            self._limit = limit
            try:
                return super().train(checkpoint, *args, **kwargs)
            finally:
                self.args.save_total_limit = limit

    @contextmanager
    def _alone_in_folder(self) -> Iterator[None]:
        """Hold the output folder, where something is saved in it; one process does it for all."""
        if self.args.save_strategy == "no" or not self.is_world_process_zero():
            yield
            return
        with held_folder(Path(str(self.args.output_dir))):
            yield

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model or adapter; of a sharded model the whole of it, whatever form its checkpoints have."""
        if _internal_call and output_dir is not None:
            self._checkpoint = Path(output_dir)
            if self.args.should_save:
                begin_checkpoint(self._checkpoint)
            self.accelerator.wait_for_everyone()
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if _internal_call or plugin is None:
            super().save_model(output_dir, _internal_call)
            return
        # transformers writes no weights at all where checkpoints are in shards.
        of_checkpoints = plugin.state_dict_type, plugin.state_dict_config
        plugin.state_dict_config = None
        plugin.set_state_dict_type("FULL_STATE_DICT")
        try:
            super().save_model(output_dir, _internal_call)
        finally:
            plugin.state_dict_type, plugin.state_dict_config = of_checkpoints

    def checkpoint_saved(self) -> None:
        """Called when this rank has written its part of a checkpoint."""
        self.accelerator.wait_for_everyone()
        if self._checkpoint is not None and self.args.should_save:
            finish_checkpoint(self._checkpoint)
            drop_checkpoints(self._checkpoint, self._limit, self.state.best_model_checkpoint)
        self._checkpoint = None


class _CheckpointCallback(TrainerCallback):
    """Tells the trainer when a checkpoint is written."""

    def __init__(self, trainer: CheckpointedTrainer) -> None:
        self.trainer = trainer

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.checkpoint_saved()
