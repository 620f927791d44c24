"""What a person sees while training: a bar with the losses, and a line of columns for each log."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from unlearn_hf.evaluation.metrics.catalog import VARIANT_SUFFIXES, is_metric

FIRST_COLUMNS = (
    "step",
    "epoch",
    "loss",
    "forget_loss",
    "retain_loss",
    "forget_weight",
    "retain_weight",
    "dual",
    "learning_rate",
    "grad_norm",
)
"""In this order; others follow by name, as far as there is room."""
_NOTEBOOK = "transformers.utils.notebook"  # which needs IPython
WITHOUT_TERMINAL = 120
"""Characters of a line where no terminal tells."""
_NARROWEST, _LINES_TO_HEADER = 9, 25
_COUNTERS = ("_runtime", "_per_second", "epoch", "total_flos", "_preparation_time")


def show_progress(trainer: Any) -> None:
    """Put our callback in the place of those of transformers that print dictionaries; a user's own stay."""
    found: TrainerCallback = TerminalProgress(trainer)
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ == "NotebookProgressCallback" and type(callback).__module__ == _NOTEBOOK:
            from unlearn_hf.training.notebook_progress import NotebookProgress

            found = NotebookProgress()
        elif type(callback) not in (PrinterCallback, ProgressCallback, TerminalProgress):
            continue
        trainer.remove_callback(callback)
    trainer.add_callback(found)


def columns_of(logs: Mapping[str, Any], width: int | None = None) -> list[str]:
    """Names of the columns for a log of training, as many as fit into `width` characters."""
    names = {"step", *(name for name, value in logs.items() if isinstance(value, int | float))} - {"total_flos"}
    if "forget_loss" in names:
        names -= {"loss"}  # their weighted sum
    ordered = [name for name in FIRST_COLUMNS if name in names] + sorted(names - set(FIRST_COLUMNS))
    while width is not None and len(ordered) > 1 and sum(_width(name) + 1 for name in ordered) > width:
        ordered.pop()
    return ordered


def _width(name: str) -> int:
    return max(len(name), 5 if name in ("step", "epoch") else _NARROWEST)


def header(names: Sequence[str]) -> str:
    """The names above their columns."""
    return " ".join(f"{name.replace('_', ' '):>{_width(name)}}" for name in names)


def line(names: Sequence[str], values: Mapping[str, Any]) -> str:
    """Values under their names; nothing where there is none."""
    return " ".join(f"{shown_value(values.get(name)):>{_width(name)}}" for name in names)


def shown_value(value: Any) -> str:
    """A number with four digits, anything else as it is, nothing for what is not there."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def sentences(logs: Mapping[str, Any], step: int, width: int) -> list[str]:
    """A log that is not of training steps: the end of a run, or values of an evaluation, in lines."""
    if "train_runtime" in logs:
        return [
            f"{step} steps in {logs['train_runtime']:.1f} s ({logs['train_samples_per_second']:.3g} rows a second)"
        ]
    names = [name for name in logs if not name.endswith(_COUNTERS)]
    metrics = {name: name.removeprefix("eval_") for name in names}
    variants = [name for name in names if not is_metric(metrics[name]) and metrics[name].endswith(VARIANT_SUFFIXES)]
    shown = ", ".join(f"{metrics[name]} {shown_value(logs[name])}" for name in names if name not in variants)
    if variants:
        shown += f" ({len(variants)} more under other definitions)"
    when = f"evaluated after step {step}" if any(name.startswith("eval_") for name in names) else f"step {step}"
    return textwrap.wrap(f"{when}: {shown}", width, subsequent_indent="  ") if names else []


class TerminalProgress(ProgressCallback):
    """transformers' bars, unless `disable_tqdm` is set, and lines of columns.

    The whole log, every number of it, is in `trainer_state.json` and with the trackers.

    Args:
        trainer: whose `current_losses` stand beside the bar.
    """

    def __init__(self, trainer: Any) -> None:
        super().__init__()
        self._trainer = trainer
        self._columns: list[str] = []
        self._lines = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar."""
        self._columns, self.current_step = [], state.global_step
        if state.is_world_process_zero and not args.disable_tqdm:
            self.training_bar: Any = tqdm(
                total=state.max_steps, initial=state.global_step, desc="training", dynamic_ncols=True
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the bar."""
        if self.training_bar is not None:
            losses = {name: f"{value:.3g}" for name, value in self._trainer.current_losses.items()}
            self.training_bar.set_postfix(losses, refresh=False)
            super().on_step_end(args, state, control, **kwargs)

    def on_prediction_step(self, args: TrainingArguments, *positional: Any, **kwargs: Any) -> None:
        """Move the bar of an evaluation."""
        if not args.disable_tqdm:
            super().on_prediction_step(args, *positional, **kwargs)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Print a line."""
        if not state.is_world_process_zero or not logs:
            return
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WITHOUT_TERMINAL
        if "loss" not in logs:
            if found := sentences(logs, state.global_step, width):
                self._print("\n".join(found))
            return
        values = {**logs, "step": state.global_step}
        columns = columns_of(values, width)
        if columns != self._columns or self._lines % _LINES_TO_HEADER == 0:
            self._columns, self._lines = columns, 0
            self._print(header(columns))
        self._lines += 1
        self._print(line(columns, values))

    def on_train_end(self, *positional: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.training_bar is not None:
            super().on_train_end(*positional, **kwargs)

    def _print(self, text: str) -> None:
        if self.training_bar is not None:
            self.training_bar.write(text)  # above the bar
        else:
            print(text, flush=True)
