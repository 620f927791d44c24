"""The rows that an audit asks about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlearn_hf.audit.rewording import PARAPHRASE_COLUMN
from unlearn_hf.data.columns import detect_columns

SETS = ("forget", "retain", "holdout")


def audited_rows(datasets: Mapping[str, Any], evaluator: Any, most: int | None) -> dict[str, list[dict[str, Any]]]:
    """The rows that an evaluator asks about, with the paraphrased questions of one's own files; maybe none.

    Args:
        datasets: what was loaded, by name.
        evaluator: made of them.
        most: rows of the holdout set.

    Returns:
        `forget`, `retain` and, where there are some, `holdout` rows, with `question` and `answer`.
    """
    from unlearn_hf.evaluation.requests import SplitRequest  # only here: the command line reads the rest without torch

    asked = {each.split: list(each.rows) for each in evaluator.requests() if isinstance(each, SplitRequest)}
    if not {"forget", "retain"} <= asked.keys():
        return {}
    found = {name: [dict(row) for row in asked.get(name, [])] for name in SETS}
    own = datasets.get("forget")
    if own is not None and PARAPHRASE_COLUMN in own.column_names and PARAPHRASE_COLUMN not in found["forget"][0]:
        for row, text in zip(found["forget"], own[PARAPHRASE_COLUMN], strict=False):
            row[PARAPHRASE_COLUMN] = text
    others = datasets.get("holdout")
    if not found["holdout"] and others is not None and len(columns := detect_columns(others.column_names)) == 2:
        found["holdout"] = [{"question": row[columns[0]], "answer": row[columns[1]]} for row in others][:most]
    return found
