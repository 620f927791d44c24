"""Which benchmark a log belongs to, by what the benchmarks of the registry claim; and whether a retain log fits."""

from __future__ import annotations

from typing import Any

import pandas as pd

from unlearn_hf.benchmarks.base import BENCHMARKS
from unlearn_hf.evaluation.logs.reading import EvaluationLog, PathLike, read_reference_log


def benchmark_of(log: EvaluationLog) -> str | None:
    """Name of the benchmark that the log names, or that alone claims it; `None` if there is none."""
    return log.benchmark or _claimed(log.samples, set(log.metrics))


def _claimed(samples: pd.DataFrame | None, metrics: set[str]) -> str | None:
    splits = set() if samples is None else set(samples["split"])
    found = [name for name, benchmark in BENCHMARKS.items() if benchmark.claims(splits, metrics, samples)]
    return found[0] if len(found) == 1 else None


def data_of(log: EvaluationLog) -> tuple[str | None, str | None]:
    """Benchmark and what of it is to be forgotten (MUSE's corpus, TOFU's split), each `None` where unknown."""
    settings = log.record.get("settings", {})
    return benchmark_of(log), settings.get("corpus") or settings.get("split")


def read_reference(
    reference: PathLike | pd.DataFrame | None, benchmark: str | None = None, part: str | None = None
) -> pd.DataFrame | None:
    """The per-sample table of a retain model's log; a table, or `None`, as it is.

    Args:
        reference: the log, or its table.
        benchmark: of the evaluation that is to be compared; `None` takes any.
        part: what of it is to be forgotten, see `data_of`.

    Raises:
        ValueError: if it is no log, one without values per sample, or known to be of other data.
    """
    if reference is None:
        return None
    if isinstance(reference, pd.DataFrame):
        if {"split", "index"} <= set(reference.columns):
            check_same_data((benchmark, part), (_claimed(reference, set()), None), "the table")
        return reference
    try:
        log = read_reference_log(reference)
        table = log.table("a reference")
    except ValueError as error:
        raise ValueError(f"retain_results: {error}") from error
    check_same_data((benchmark, part), data_of(log), log.path)
    return table


def check_same_data(
    mine: tuple[str | None, ...],
    theirs: tuple[str | None, ...],
    reference: Any,
    evaluation: str = "the evaluation",
) -> None:
    """Raise unless benchmark and part of an evaluation and of its reference are equal, where both are known.

    Raises:
        ValueError: naming both sides.
    """
    if any(one and other and one != other for one, other in zip(mine, theirs, strict=True)):
        sides = [" ".join(filter(None, side)) for side in (theirs, mine)]
        raise ValueError(
            f"retain_results: {reference} is of {sides[0]}, but {evaluation} is of {sides[1]}. Take the retain "
            "model's evaluation on the same data."
        )
