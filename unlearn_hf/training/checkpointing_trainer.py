"""A `Trainer` that loses no work: checkpoints that are known to be whole, one run in a folder, care on full disks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unlearn_hf.common.locks import held_folder
from unlearn_hf.models.sharding import shards
from unlearn_hf.training.checkpoints import (
    begin_checkpoint,
    checkpoints,
    damage,
    drop_checkpoints,
    finish_checkpoint,
    newest_complete_checkpoint,
)
from unlearn_hf.training.disk_space import check_space, is_disk_full
from unlearn_hf.training.loop_events import LoopEvents
from unlearn_hf.training.search import SearchableTrainer


class CheckpointedTrainer(SearchableTrainer):
    """Writes checkpoints with a manifest, and deletes an older one only when the newer is whole.

    Attributes:
        checkpoint_files: what a checkpoint of this trainer must hold beyond what every one does.
    """

    checkpoint_files: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._checkpoint: Path | None = None
        self.add_callback(LoopEvents(self))

    def checkpoint_to_resume(self, wanted: str | bool | None) -> str | None:
        """The checkpoint that is named, or, for `True`, the newest intact one in the output folder.

        Raises:
            ValueError: when it is damaged, there is none, or there is too little room for what training will write.
        """
        check_space(self)
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
            ValueError: when there is no intact checkpoint to resume from, too little room for checkpoints, or another
                process works in the output folder.
            OSError: when the disk is full in spite of that, saying what was kept and where.
        """
        with self._alone_in_folder():
            checkpoint = self.checkpoint_to_resume(resume_from_checkpoint)
            # transformers would delete the older checkpoint before the newer one is known to be whole.
            limit, self.args.save_total_limit = self.args.save_total_limit, None
            self._limit = limit
            try:
                return super().train(checkpoint, *args, **kwargs)
            except Exception as problem:
                if self._checkpoint is None or not self.args.should_save or not is_disk_full(problem):
                    raise
                raise OSError(self._keep_what_can_be_kept(self._checkpoint)) from problem
            finally:
                self.args.save_total_limit, self._checkpoint = limit, None

    @contextmanager
    def _alone_in_folder(self) -> Iterator[None]:
        """Hold the output folder, where something is saved in it; one process does it for all."""
        if self.args.save_strategy == "no" or not self.is_world_process_zero():
            yield
            return
        with held_folder(Path(str(self.args.output_dir))):
            yield

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model or adapter, whole or not at all; of a sharded model the whole of it.

        Raises:
            OSError: when there is no room, saying where the weights are instead.
        """
        if _internal_call:
            if output_dir is not None:
                self._checkpoint = Path(output_dir)
                if self.args.should_save:
                    begin_checkpoint(self._checkpoint)
                self.accelerator.wait_for_everyone()
            super().save_model(output_dir, _internal_call)
            return
        folder = Path(output_dir or str(self.args.output_dir))
        try:
            self._save_weights(folder)
        except Exception as problem:
            # The ranks of a sharded model write together; one cannot try again alone.
            if not is_disk_full(problem) or not self.args.should_save or shards(self.accelerator):
                raise
            where = self._save_weights_elsewhere(folder)
            if where != folder:
                message = f"output_dir: {str(folder)!r} has no room for the weights; they are in {str(where)!r}."
                raise OSError(message) from problem

    def _save_weights(self, folder: Path) -> None:
        """Write the files of the model beside their place and move them there, so that none is ever half of one."""
        partial = folder / ".partial-weights"
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        of_checkpoints = (plugin.state_dict_type, plugin.state_dict_config) if plugin is not None else None
        try:
            if plugin is not None:
                # transformers writes no weights at all where checkpoints are in shards.
                plugin.state_dict_config = None
                plugin.set_state_dict_type("FULL_STATE_DICT")
            super().save_model(str(partial))
            if self.is_deepspeed_enabled:  # whose ranks may all write
                self.accelerator.wait_for_everyone()
            if self.args.should_save:
                for path in [each for each in partial.rglob("*") if each.is_file()]:
                    place = folder / path.relative_to(partial)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(place)
        finally:
            if plugin is not None and of_checkpoints is not None:
                plugin.state_dict_type, plugin.state_dict_config = of_checkpoints
            if self.args.should_save:
                shutil.rmtree(partial, ignore_errors=True)

    def _save_weights_elsewhere(self, folder: Path) -> Path:
        """Save the weights of a run whose disk is full; returns where.

        Raises:
            OSError: when there is no room anywhere.
        """
        intact = [path for path in checkpoints(folder) if damage(path, self.checkpoint_files) is None]
        if len(intact) > 1:  # older ones are worth less than the weights of now
            drop_checkpoints(intact[-1], 1, self.state.best_model_checkpoint)
            if self._fits(folder):
                return folder
        if self._fits(elsewhere := Path(tempfile.mkdtemp(prefix="unlearn_hf_weights_"))):
            return elsewhere
        elsewhere.rmdir()
        kept = f"; the newest checkpoint that is whole is {str(intact[-1])!r}" if intact else ""
        message = f"output_dir: {str(folder)!r} has no room for the weights, nor has the temporary folder{kept}."
        raise OSError(message)

    def _fits(self, folder: Path) -> bool:
        """Save the weights in `folder`, and say whether there was room."""
        try:
            self._save_weights(folder)
        except Exception as problem:
            if not is_disk_full(problem):
                raise
            return False
        return True

    def _keep_what_can_be_kept(self, broken: Path) -> str:
        """After a checkpoint could not be written: make way, save the weights if nothing else holds them, say so."""
        shutil.rmtree(broken, ignore_errors=True)
        intact = [path for path in checkpoints(broken.parent) if damage(path, self.checkpoint_files) is None]
        message = f"output_dir: there is no room for {str(broken)!r}"
        finished = self.state.global_step >= self.state.max_steps
        if (finished or not intact) and not shards(self.accelerator):
            where = broken.parent / f"weights-{self.state.global_step}"
            if not self._fits(where):
                shutil.rmtree(where, ignore_errors=True)
                where = self._save_weights_elsewhere(broken.parent)
            message += f"; the weights after step {self.state.global_step} are in {str(where)!r}"
        if intact:
            message += f"; after making room, the run can be resumed from {intact[-1].name}"
        return message + "."

    def checkpoint_saved(self) -> None:
        """Called when this rank has written its part of a checkpoint."""
        self.accelerator.wait_for_everyone()
        if self._checkpoint is not None and self.args.should_save:
            finish_checkpoint(self._checkpoint)
            drop_checkpoints(self._checkpoint, self._limit, self.state.best_model_checkpoint)
        self._checkpoint = None

    def training_begins(self) -> None:
        """Called when model and optimizer are wrapped and restored, before the first step."""

    def epoch_begins(self, epoch: int) -> None:
        """Called when pass number `epoch` over the rows begins or goes on."""

    def optimizer_stepped(self) -> None:
        """Called when parameters are new and gradients still there."""

    def step_ended(self) -> None:
        """Called after every step."""

    def epoch_ended(self) -> None:
        """Called after every pass over the rows."""

    def training_ended(self) -> None:
        """Called when the loop is over."""
