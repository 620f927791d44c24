"""Answers of all models side by side, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from unlearn_hf.report.runs import Run


@dataclass
class AnsweredRow:
    """One row of the evaluated data with what every model answered.

    Attributes:
        split: the set of rows.
        index: its number there.
        prompt: the question.
        reference: the answer that the data hold.
        answers: position of a run -> its answer and how likely the reference is to it (`None` where unknown).
    """

    split: str
    index: int
    prompt: str
    reference: str
    answers: dict[int, tuple[str, float | None]] = field(default_factory=dict)


def answered_rows(runs: Sequence[Run], most: int) -> tuple[list[AnsweredRow], int]:
    """Rows that a model answered; forget rows first. Rows of different texts are never put together.

    Returns:
        At most `most` rows, and how many there are in all.
    """
    found: dict[tuple[str, int, str, str], AnsweredRow] = {}
    for at, run in enumerate(runs):
        table = run.samples
        if table is None or "generation" not in table:
            continue
        for row in table[table["generation"].notna()].to_dict("records"):
            split, index = str(row["split"]), int(row["index"])
            prompt, reference = _text(row.get("prompt")), _text(row.get("reference_text"))
            key = (split, index, prompt.strip(), reference.strip())
            entry = found.setdefault(key, AnsweredRow(split, index, prompt, reference))
            entry.answers[at] = (_text(row["generation"]), _probability(row.get("answer_mean_nll")))
    rows = sorted(found.values(), key=lambda row: (not row.split.startswith("forget"), row.split, row.index))
    return _shares(rows, most), len(rows)


def _shares(rows: list[AnsweredRow], most: int) -> list[AnsweredRow]:
    """The first rows; every set gets a part when there are too many."""
    if len(rows) <= most:
        return rows
    splits = list(dict.fromkeys(row.split for row in rows))
    each = max(1, most // len(splits))
    return [row for split in splits for row in [row for row in rows if row.split == split][:each]][:most]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _probability(loss: Any) -> float | None:
    return None if loss is None or pd.isna(loss) else float(np.exp(-float(loss)))
