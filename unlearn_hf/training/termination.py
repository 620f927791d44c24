"""Ctrl-C, and SIGTERM, by which schedulers and container hosts end a run: a checkpoint of the step at hand is left."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class _Ending(TrainerCallback):
    """Lets the step at hand end, saves a checkpoint and leaves the loop, once that is asked for."""

    def __init__(self, can_save: bool) -> None:
        self.can_save = can_save
        self.asked = self.training = False

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        self.training = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.asked:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def on_save(self, *_: Any, **kwargs: Any) -> None:
        if self.asked:  # the checkpoint is there; what comes after training is not wanted
            raise KeyboardInterrupt

    def on_train_end(self, *_: Any, **kwargs: Any) -> None:
        self.training = False
        if self.asked:  # while the last step's evaluation was made: no step has followed that would have saved
            raise KeyboardInterrupt


@contextmanager
def ending_on_signals(trainer: Any) -> Iterator[None]:
    """Within the context Ctrl-C and SIGTERM raise a `KeyboardInterrupt`: after a step and its checkpoint in training.

    At once they do so outside of training, at the second signal, where nothing is saved (`save_strategy` `no`), and
    with several processes, which do not get the signal at the same step; Ctrl-C also with workers that load data,
    because a terminal ends these too. A signal that is ignored stays so, and one whose handler is not Python's (of a
    program around it) keeps that, which could not be put back. Outside of the main thread nothing changes.

    Args:
        trainer: the run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    strategy = str(getattr(trainer.args.save_strategy, "value", trainer.args.save_strategy))
    ending = _Ending(can_save=strategy != "no" and trainer.args.world_size == 1)
    trainer.add_callback(ending)

    def end(number: int, frame: FrameType | None) -> None:
        without_data = number == signal.SIGINT and trainer.args.dataloader_num_workers > 0
        if ending.asked or without_data or not (ending.training and ending.can_save):
            raise KeyboardInterrupt
        ending.asked = True
        if number == signal.SIGINT:  # written past buffers, which may be in use at this very moment
            os.write(2, b"\nending after this step and its checkpoint; Ctrl-C again ends at once\n")

    signals = (signal.SIGINT, signal.SIGTERM)
    heeded = [each for each in signals if signal.getsignal(each) not in (signal.SIG_IGN, None)]
    before = {each: signal.signal(each, end) for each in heeded}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        trainer.remove_callback(ending)
