"""What judges a model while it is trained, and where its results go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase


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
        folder = Path(str(output_dir)) / "evaluations" / f"step-{step}"
        if len(evaluators) > 1:
            folder /= str(index)
        found |= evaluator(model, tokenizer, accelerator=accelerator, output_dir=folder)
    return found
