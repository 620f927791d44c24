"""What judges a model while it is trained, and where its results go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from unlearn_hf.common.files import whole_file
from unlearn_hf.evaluation import RESULT_FILE, SAMPLES_FILE, TASKS_FILE


class Evaluator(Protocol):
    """Judges a model: returns flat metric names and numbers, and leaves the model as it was."""

    def __call__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        accelerator: Accelerator | None = None,
        output_dir: Path | None = None,
    ) -> dict[str, float]:
        """Evaluate `model`; with `output_dir`, keep aggregates and per-sample values there."""
        ...


def run_evaluators(
    evaluators: Sequence[Evaluator],
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
    output_dir: str | os.PathLike[str] | None,
    step: int,
) -> dict[str, float]:
    """Run evaluators; each keeps its results in `evaluations/step-N`, in a folder of its own if there are several.

    Args:
        evaluators: what to run.
        model: the model.
        tokenizer: its tokenizer.
        accelerator: shares the work out over its processes.
        output_dir: the run folder.
        step: the optimizer step, N.

    Returns:
        All their metrics by flat name.
    """
    found: dict[str, float] = {}
    for index, evaluator in enumerate(evaluators):
        folder = _results(Path(str(output_dir)), step)
        if len(evaluators) > 1:
            folder /= str(index)
        found |= evaluator(model, tokenizer, accelerator=accelerator, output_dir=folder)
    return found


def _results(folder: Path, step: int) -> Path:
    return folder / "evaluations" / f"step-{step}"


def bring_results_up(folder: Path, step: int) -> None:
    """Copy the files of the evaluation after `step` to the top of the run folder."""
    for file in (RESULT_FILE, SAMPLES_FILE, TASKS_FILE):
        for found in sorted(_results(folder, step).rglob(file))[:1]:  # several evaluators have folders of their own
            with whole_file(folder / file) as partial:
                shutil.copy2(found, partial)
