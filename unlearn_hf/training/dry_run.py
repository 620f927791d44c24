"""What training would do: rows, steps, memory, disk, time, and an example as the model sees it; nothing is written."""

from __future__ import annotations

import contextlib
import copy
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase, TrainerCallback

from unlearn_hf.common.terminal import readable_size
from unlearn_hf.data.encoding import encode_dataset
from unlearn_hf.data.labels import IGNORE_INDEX
from unlearn_hf.data.new_words import with_new_words
from unlearn_hf.data.row_checks import check_overlap
from unlearn_hf.data.templates import resolve_template
from unlearn_hf.models.loading import check_vocabulary
from unlearn_hf.training.disk_space import planned_steps, space_needed
from unlearn_hf.training.finetuning import FinetuningTrainer
from unlearn_hf.training.memory_estimate import MemoryEstimate, estimate_memory, model_without_weights

if TYPE_CHECKING:
    from datasets import Dataset

BEGINS, ENDS = ">>>", "<<<"
_TIMED_STEPS = 2


def dry_run(
    model_name: str,
    training: Any,
    rows: Mapping[str, Dataset],
    tokenizer: PreTrainedTokenizerBase,
    method: type[Any] | None = None,
    peft_config: Any | None = None,
    measure: bool = False,
) -> str:
    """Print what training would do.

    Args:
        model_name: hub id or folder.
        training: the configuration, of `method` where there is one.
        rows: what would be trained on, by set.
        tokenizer: the model's.
        method: the trainer class; `None` for fine-tuning.
        peft_config: of the adapter, if one would be added.
        measure: also load the model and time a step.

    Returns:
        An example as the model sees it, see `marked`.

    Raises:
        ValueError: for what training itself would refuse before its first step.
    """
    template = resolve_template(tokenizer, training.template)
    with _no_cache():
        sets = {
            name: encode_dataset(each, tokenizer, template, training.max_length, f"{name}_dataset")
            for name, each in rows.items()
        }
    held = getattr(training, "held_back_rows", 0)
    if method is not None and "retain" in sets:
        check_overlap(sets["forget"], sets["retain"], training.allow_overlap)
        training.check_fills_batch(len(sets["retain"]))
    if method is not None and training.forget_tokens == "new_words":
        with _no_cache():
            sets["forget"] = with_new_words(sets["forget"], tokenizer, "forget_dataset")
    model = model_without_weights(model_name, training, peft_config)
    check_vocabulary(model, tokenizer)
    first = next(iter(sets.values()))
    per_epoch, steps = planned_steps(training, len(first))
    memory = estimate_memory(model, training, {name: list(each) for name, each in sets.items()}, steps, method)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad and training.trains)
    models = getattr(method, "models_saved", 1)
    stepped = first if training.trains else None  # without a step there is no checkpoint
    disk = space_needed(SimpleNamespace(args=training, model=model, train_dataset=stepped, models_saved=models))
    print("dry run: nothing is written")
    for name, each in sets.items():
        answers = sum(label != IGNORE_INDEX for labels in each["labels"] for label in labels)
        back = f"; {held} of them held back" if held and name == "retain" else ""
        _line(name, f"{len(each)} rows, {sum(map(len, each['input_ids']))} tokens, {answers} of them trained{back}")
    batch = training.per_device_train_batch_size * training.world_size * training.gradient_accumulation_steps
    most = "at most " if _may_stop(training) else ""
    counted = f"{most}{steps}, {per_epoch} an epoch, of {batch} rows{' of each set' if method else ''}"
    _line("steps", counted if training.trains else "none")
    _line("trained", f"{trained:,} of {sum(each.numel() for each in model.parameters()):,} parameters")
    _memory_lines(memory)
    _line("disk", f"about {readable_size(disk)} in {training.output_dir}, without evaluations")
    if measure and training.trains:
        trainer: Callable[..., Any] = method or FinetuningTrainer
        options: dict[str, Any] = {"processing_class": tokenizer, "peft_config": peft_config}
        if method is not None:
            options["retain_dataset"] = None  # unless there are such rows
        seconds = seconds_per_step(partial(trainer, model_name, **options), training, rows)
        _line(
            "time", f"about {_duration(seconds * steps)} ({seconds:.3g} s a step on {training.device}; no evaluation)"
        )
    return marked(first[0], tokenizer)


def marked(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of an encoded row, special tokens included, with marks around each part that is trained."""
    parts: list[tuple[bool, list[int]]] = []
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        if not parts or parts[-1][0] != (label != IGNORE_INDEX):
            parts.append((label != IGNORE_INDEX, []))
        parts[-1][1].append(token)
    texts = ((trained, tokenizer.decode(ids)) for trained, ids in parts)
    return "".join(f"{BEGINS}{text}{ENDS}" if trained else str(text) for trained, text in texts)


def seconds_per_step(trainer: Callable[..., Any], training: Any, rows: Mapping[str, Dataset]) -> float:
    """Seconds of the second optimizer step, on the first rows; the first warms up.

    Args:
        trainer: makes the trainer, and loads its model, from a configuration, rows of each set and callbacks.
        training: the configuration.
        rows: what would be trained on, by set.
    """
    clock = _Clock()
    args = copy.copy(training)
    count = _TIMED_STEPS * args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
    some = {f"{name}_dataset": each.select(range(min(count, len(each)))) for name, each in rows.items()}
    with tempfile.TemporaryDirectory() as folder:
        changes: dict[str, Any] = {
            "output_dir": folder,
            "max_steps": _TIMED_STEPS,
            "save_strategy": "no",
            "eval_strategy": "no",
            "logging_strategy": "no",
            "load_best_model_at_end": False,
            "report_to": [],
            "disable_tqdm": True,
            "push_to_hub": False,
            "verdict": False,
            "stop_when": None,
            "held_back_rows": 0,
            "reference_cache": None,
        }
        for name in changes:
            if hasattr(args, name):
                setattr(args, name, changes[name])
        trainer(args=args, callbacks=[clock], **some).train()
    return clock.seconds


class _Clock(TrainerCallback):
    """Seconds of the last optimizer step."""

    def __init__(self) -> None:
        self.seconds = self._start = 0.0

    def on_step_begin(self, *positional: Any, **named: Any) -> None:
        self._start = _now()

    def on_step_end(self, *positional: Any, **named: Any) -> None:
        self.seconds = _now() - self._start


def _now() -> float:
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


@contextlib.contextmanager
def _no_cache() -> Iterator[None]:
    """Let `datasets` keep what it encodes in memory."""
    import datasets

    before = datasets.is_caching_enabled()
    datasets.disable_caching()
    try:
        yield
    finally:
        if before:
            datasets.enable_caching()


def _may_stop(training: Any) -> bool:
    return any(getattr(training, name, None) is not None for name in ("stop_when", "retain_budget"))


def _memory_lines(memory: MemoryEstimate) -> None:
    parts = ", ".join(f"{name} {readable_size(size)}" for name, size in memory.parts.items())
    unknown = "" if memory.activations_known else "; activations of this architecture are not known"
    _line("memory", f"about {readable_size(memory.total)} at the peak of a step, on each process{unknown}")
    for part in textwrap.wrap(parts, 70):
        _line("", part)
    if memory.on_cpu and "copies of trained weights" not in memory.parts:
        _line("", f"and {readable_size(memory.on_cpu)} on the CPU")


def _line(name: str, text: str) -> None:
    print(f"{name:<9}{text}")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
