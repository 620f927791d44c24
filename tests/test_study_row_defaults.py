"""The study of the defaults for rows of one's own: what is cut out of a corpus, and what its table says."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import load_script


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return load_script("study_row_defaults")


@pytest.mark.parametrize("size", [4, 10, 12])
def test_whole_subjects_are_cut_out_and_the_others_shared_out(size: int, study: ModuleType) -> None:
    rows: list[dict[str, Any]] = [{"number": number} for number in range(60)]
    forget, keep, rest = study.cut(rows, size, 30, 10, seed=1)
    assert (len(forget), len(keep)) == (size, 30)
    assert sorted(row["number"] for row in forget + keep + rest) == list(range(60))
    assert len({row["number"] // 10 for row in forget}) == -(-size // 10)
    assert study.cut(rows, size, 30, 10, seed=1)[0] == forget
    assert study.cut(rows, size, 30, 10, seed=2)[1] != keep


def test_the_table_counts_by_model(study: ModuleType) -> None:
    found = {
        "size": 4,
        "seed": 1,
        "steps": 80,
        "before": 0.99,
        "after": 0.01,
        "leaking": 0,
        "guessed": 1,
        "kept": 0.97,
    }
    tries = [
        {"model": "a", **found, "others": None, "done": True},
        {"model": "a", **found, "others": 0.9, "done": False},
        {"model": "b", **found, "others": 0.9, "done": True},
    ]
    text = study.table(tries)
    assert "\na: 1 of 2" in text
    assert "\nb: 1 of 1" in text
    assert text.count("| a | 4 | 1 | 80 | 0.99 to 0.010 | 0 | 1 | 0.970 |") == 2


@pytest.mark.parametrize("other", [{"keep": 80}, {"subject": 4}, {"others": 9}, {"method": "pdu"}, {"options": "[]"}])
def test_a_try_with_other_options_or_rows_has_another_file(other: dict[str, Any], study: ModuleType) -> None:
    options = {"keep": 60, "subject": 10, "others": 100, "method": "npo", "options": "{}", "output_dir": Path("x")}
    rows = [{"question": "Who?", "answer": "Ada."}]
    file = study.file_of("runs/m:adapter", 4, 1, rows, Namespace(**options))
    assert file == study.file_of("runs/m:adapter", 4, 1, rows, Namespace(**options))
    assert file.name.startswith("runs_m_adapter_4_1_")
    assert file != study.file_of("runs/m:adapter", 4, 1, rows, Namespace(**{**options, **other}))
    assert file != study.file_of("runs/m:adapter", 4, 1, rows * 2, Namespace(**options))
