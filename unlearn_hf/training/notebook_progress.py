"""What a person sees while training in a notebook."""

from __future__ import annotations

from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.utils.notebook import NotebookProgressCallback

from unlearn_hf.training.progress import WITHOUT_TERMINAL, columns_of, sentences, shown_value


class NotebookProgress(NotebookProgressCallback):
    """transformers' bar and table of a notebook, with our columns in every line of training."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar; columns follow from the first log."""
        self._columns: list[str] = []
        super().on_train_begin(args, state, control, **kwargs)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Add a line to the table."""
        if self.training_tracker is None or not logs:
            return
        if "loss" not in logs:
            for each in sentences(logs, state.global_step, WITHOUT_TERMINAL):
                print(each)
            return
        values = {**logs, "step": state.global_step}
        if not self._columns:
            self._columns = columns_of(values)
            self.training_tracker.inner_table = [[name.replace("_", " ") for name in self._columns]]
        row = {name.replace("_", " "): shown_value(values.get(name)) for name in self._columns}
        self.training_tracker.write_line(row)

    def on_evaluate(self, *_: Any, **kwargs: Any) -> None:
        """Close the bar of the evaluation; its values are printed where they are logged."""
        if self.prediction_bar is not None:
            self.prediction_bar.close()
        if self.training_tracker is not None:
            self.training_tracker.remove_child()
        self.prediction_bar = None
