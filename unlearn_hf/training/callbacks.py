"""Callbacks for any Trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unlearn_hf.training.evaluators import Evaluator, run_evaluators


class EvaluatorCallback(TrainerCallback):
    """Runs evaluators whenever a Trainer evaluates, also one that knows nothing of unlearning (TRL's, say).

    Metrics are added, as `eval_<name>`, to the metrics that the Trainer is evaluating, and to its log history. So the
    choice of the best checkpoint sees them, and so does an `EarlyStoppingCallback` that is added after this callback
    (one added before does not). Trackers (TensorBoard, Weights & Biases) do not get them, because a Trainer reports to
    them before it calls `on_evaluate`; they are in `trainer_state.json` and in `evaluations/step-N` of the output
    folder. Of several evaluation datasets, which a Trainer evaluates one after the other at the same step, only the
    first one's metrics get them, because the evaluators run once. Our own trainers take evaluators as an argument
    instead, and report to trackers too.

    Args:
        evaluators: what to run.
        tokenizer: the model's tokenizer; by default the Trainer's `processing_class`.

    Raises:
        ValueError: at the first evaluation, when neither a tokenizer is given nor the Trainer has one.
    """

    def __init__(self, evaluators: Sequence[Evaluator], tokenizer: Any | None = None) -> None:
        self.evaluators = list(evaluators)
        self.tokenizer = tokenizer
        self._step: int | None = None
        self._datasets: list[frozenset[str]] = []

    def on_train_end(self, *_: Any, **kwargs: Any) -> None:
        """Forget the last evaluation: the weights may be those of the best checkpoint from here on."""
        self._step = None

    def _continues(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Whether this is a further dataset of the evaluation at hand, rather than a new one."""
        # Every dataset has metrics of its own prefix, and a new evaluation begins with one that has been seen.
        dataset = frozenset(name for name in metrics if name.endswith("_runtime"))
        further = step == self._step and dataset not in self._datasets
        self._datasets = [*self._datasets, dataset] if further else [dataset]
        self._step = step
        return further

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Run the evaluators, once for all datasets of an evaluation, and publish what they found."""
        tokenizer = self.tokenizer if self.tokenizer is not None else kwargs.get("processing_class")
        if tokenizer is None:
            raise ValueError("tokenizer: the Trainer has no processing_class; pass a tokenizer to EvaluatorCallback.")
        if self._continues(state.global_step, kwargs["metrics"]):
            return
        values = run_evaluators(
            self.evaluators, kwargs["model"], tokenizer, Accelerator(), args.output_dir, state.global_step
        )
        found = {f"eval_{name}": value for name, value in values.items()}
        kwargs["metrics"].update(found)
        state.log_history.append({**found, "epoch": state.epoch, "step": state.global_step})
