"""Evaluators that compare with the retain results which are registered for the same data and base model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_hf.cli.arguments import DataArguments
from unlearn_hf.cli.data import LoadedData, make_evaluators
from unlearn_hf.cli.evaluation_arguments import REGISTERED, EvaluationArguments
from unlearn_hf.common.terminal import say
from unlearn_hf.evaluation.retain_registry import REGISTRY, evaluated_by, find

if TYPE_CHECKING:
    from unlearn_hf.training.evaluators import Evaluator


def registry_of(evaluation: EvaluationArguments, folder: Path) -> Path:
    """The registry: the one that is named, or that beside a run folder."""
    return Path(evaluation.retain_registry) if evaluation.retain_registry else folder.absolute().parent / REGISTRY


def trained_on(data: DataArguments) -> dict[str, Any]:
    """What of the data decides which retain model is the gold standard."""
    return {"forget_part": data.forget_part, "max_retain_rows": data.max_retain_rows}


def evaluators_with_retain_results(
    data: LoadedData,
    arguments: DataArguments,
    evaluation: EvaluationArguments,
    template: str,
    max_length: int,
    *,
    model: str,
    folders: Sequence[Path],
    resume: bool = False,
) -> list[Evaluator]:
    """The evaluators, which compare with registered retain results where none are named, and some fit.

    Args:
        data: what was loaded.
        arguments: by which.
        evaluation: how to evaluate; its `retain_results` become those that were found.
        template: prompt template.
        max_length: tokens per scored sequence.
        model: the model that is evaluated, or unlearned from.
        folders: run folders, beside which registries are looked for.
        resume: whether an interrupted evaluation is continued.
    """
    evaluators = make_evaluators(data, evaluation, template, max_length, resume)
    evaluated = evaluated_by(evaluators[0]) if evaluators else None
    if evaluated is None or evaluation.retain_results != REGISTERED or "retain_results" not in data.benchmark.options:
        return evaluators
    for registry in dict.fromkeys(registry_of(evaluation, folder) for folder in folders):
        found, reasons = find(registry, evaluated, trained_on(arguments), model)
        for file in found:
            evaluation.retain_results = str(file)
            try:
                evaluators = make_evaluators(data, evaluation, template, max_length, resume)
            except ValueError as problem:
                reasons.append(f"{file} is not taken: {problem}")
                continue
            where = f"registered in {os.path.relpath(registry)}; --retain_results none leaves them out"
            say(f"retain results: {file} ({where})")
            return evaluators
        for reason in reasons:
            say(f"retain results: {reason}")
    evaluation.retain_results = None
    return evaluators
