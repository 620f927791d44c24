"""The rows that an audit asks about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unlearn_hf.audit.rewording import PARAPHRASE_COLUMN
from unlearn_hf.data.columns import detect_columns

if TYPE_CHECKING:
    from unlearn_hf.benchmarks.base import Benchmark
    from unlearn_hf.evaluation.engine import Engine

SETS = ("forget", "retain", "holdout")


def audited_rows(
    benchmark: Benchmark, datasets: Mapping[str, Any], evaluator: Any, most: int | None
) -> tuple[Engine, dict[str, list[dict[str, Any]]]] | None:
    """The rows that an evaluator asks about, with the paraphrased questions of one's own files.

    Args:
        benchmark: says which sets are asked.
        datasets: what was loaded, by name.
        evaluator: made of them.
        most: rows of the holdout set.

    Returns:
        The evaluator's engine, with a template that leaves prompts as they are where the evaluator continues them so;
        and `forget`, `retain` and, where there are some, `holdout` rows, with `question` and `answer`. `None` where
        no questions are asked.
    """
    from unlearn_hf.evaluation.requests import ContinuationRequest, SplitRequest  # the rest is read without torch

    asked = {each.split: each for each in evaluator.requests() if isinstance(each, ContinuationRequest | SplitRequest)}
    sets = {name: benchmark.audited.get(name, (name,)) for name in SETS}
    found = {
        name: [_question(row) for split in splits if split in asked for row in asked[split].rows]
        for name, splits in sets.items()
    }
    if not (found["forget"] and found["retain"]):
        return None
    engine: Engine = evaluator.engine
    first = next(asked[split] for split in sets["forget"] if split in asked)
    if isinstance(first, ContinuationRequest):
        engine = replace(engine, template="completion", generation=first.generation)
    own = datasets.get("forget")
    if own is not None and PARAPHRASE_COLUMN in own.column_names and PARAPHRASE_COLUMN not in found["forget"][0]:
        for row, text in zip(found["forget"], own[PARAPHRASE_COLUMN], strict=False):
            row[PARAPHRASE_COLUMN] = text
    others = datasets.get("holdout")
    if not found["holdout"] and others is not None and len(columns := detect_columns(others.column_names)) == 2:
        found["holdout"] = [{"question": row[columns[0]], "answer": row[columns[1]]} for row in others][:most]
    return engine, found


def _question(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a question and an answer; a prompt that is continued as it is comes without its last space."""
    return {"question": row["prompt"].rstrip(" "), "answer": row["reference"]} if "reference" in row else dict(row)
