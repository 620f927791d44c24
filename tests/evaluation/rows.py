"""Small question-answer rows, and comparison of per-sample tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from unlearn_hf.benchmarks.tofu.data import TofuData
from unlearn_hf.evaluation.generation import GenerationSettings
from unlearn_hf.evaluation.requests import SplitRequest

SHORT = GenerationSettings(max_new_tokens=6)
_NAMES = ("Ada Moren", "Bo", "the café author", "Q", "Olena Who", "assistant", "system Ada", "Moren of Oslo")


def qa_rows(count: int = 8, wrong: int = 2, start: int = 0) -> list[dict[str, Any]]:
    """Rows of ragged lengths."""
    rows = []
    for index in range(start, start + count):
        name = _NAMES[index % len(_NAMES)]
        rows.append(
            {
                "question": f"Who is {name}?" + " What did she write?" * (index % 3),
                "answer": f"{name} wrote book {index}." * (1 + index % 2),
                "paraphrased_answer": f"Book {index} is by {name}.",
                "perturbed_answer": [f"{name} wrote {'no ' * (choice + 1)}book." for choice in range(wrong)],
            }
        )
    return rows


def requests(count: int = 8) -> list[SplitRequest]:
    """A forget set with everything, and a holdout set with token statistics alone."""
    return [
        SplitRequest("forget", qa_rows(count), ("answer", "paraphrase", "perturbed"), details=True),
        SplitRequest("holdout", qa_rows(4, start=20), details=True, generated=False),
    ]


def tiny_tofu() -> TofuData:
    """TOFU's parts, three rows each."""
    parts = ("full", "forget", "retain", "forget_perturbed", "retain_perturbed", "real_authors", "world_facts")
    data = {part: Dataset.from_list(qa_rows(3, start=3 * index)) for index, part in enumerate(parts)}
    data["holdout"] = Dataset.from_list(qa_rows(3, start=40))
    return TofuData(data, split="forget10", source="test", absent={})


def largest_difference(first: pd.DataFrame, second: pd.DataFrame) -> float:
    """The largest difference of numbers, relative to those above 1; texts and missing values must agree exactly."""
    first, second = (table.sort_values(["split", "index"]).reset_index(drop=True) for table in (first, second))
    assert list(first.columns) == list(second.columns)
    assert len(first) == len(second)
    largest = 0.0
    for name in first.columns:
        for one, other in zip(first[name], second[name], strict=True):
            if isinstance(one, str):
                assert one == other, (name, one, other)
            else:
                left, right = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
                assert (np.isnan(left) == np.isnan(right)).all(), name
                difference = np.abs(left - right) / np.maximum(1, np.abs(right))
                largest = max(largest, float(np.nan_to_num(difference).max(initial=0.0)))
    return largest
