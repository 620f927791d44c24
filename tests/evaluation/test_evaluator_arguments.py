"""What an evaluator is given is checked before any model is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from tests.evaluation.rows import tiny_tofu
from tests.evaluation.tables import muse_table, tofu_table
from unlearn_hf.benchmarks.muse.data import load_muse
from unlearn_hf.benchmarks.muse.evaluator import MuseEvaluator
from unlearn_hf.benchmarks.muse.metrics import aggregate_muse
from unlearn_hf.benchmarks.own_rows.evaluator import PairsEvaluator
from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator

PAIRS = {split: [{"question": "Who?", "answer": "Ada."}] for split in ("forget", "retain")}
MAKERS: dict[str, Callable[..., Any]] = {
    "tofu": lambda **options: TofuEvaluator(tiny_tofu(), **options),
    "muse": lambda **options: MuseEvaluator(load_muse("news", "mini"), **options),
    "pairs": lambda **options: PairsEvaluator(PAIRS, **options),
}


@pytest.mark.parametrize(
    ("maker", "name", "value"),
    [
        *[(maker, name, value) for maker in MAKERS for name in ("batch_size", "max_rows", "max_length")
          for value in (0, -1, 1.5)],
        *[(maker, "max_new_tokens", 0) for maker in ("tofu", "pairs")],
        *[(maker, "compatibility", "x") for maker in ("tofu", "muse")],
        ("tofu", "protocol", "x"),
    ],
)  # fmt: skip
def test_arguments_are_checked_at_once(maker: str, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}(: | is ){value!r}"):
        MAKERS[maker](**{name: value})


def tofu_reference(rows: int = 3) -> pd.DataFrame:
    """A table over the small data."""
    table = tofu_table()
    answers = tiny_tofu()["forget_perturbed"]["answer"]
    table["reference_text"] = pd.Series(dtype=object)  # or pandas 2.2 writes "nan" into the other rows
    table.loc[table["split"] == "forget", "reference_text"] = list(answers)
    return table[table["index"] < rows]


def other_texts(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(reference_text=[f"Something else {index}" for index in range(len(table))])


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (tofu_reference(2), "on forget compares 3 rows with a reference of 2 rows"),
        (other_texts(tofu_reference()), "different forget rows: only 0%"),
        (tofu_reference()[lambda table: (table["split"] != "holdout") | (table["index"] < 2)], "on holdout compares"),
        (tofu_reference()[lambda table: table["split"] == "retain"], "the reference has neither truth ratios"),
        (pd.concat([tofu_reference()] * 2), "are duplicates"),
        (tofu_reference().drop(columns="index"), "lacks the columns"),
        (muse_table(), "is of muse, but the evaluation is of tofu"),
        ("absent", "there is no file absent"),
    ],
)
def test_tofu_references_are_checked_at_once(reference: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^retain_results: .*{message}"):
        TofuEvaluator(tiny_tofu(), reference)


def test_references_are_cut_to_the_first_rows() -> None:
    TofuEvaluator(tiny_tofu(), tofu_reference())
    evaluator = TofuEvaluator(tiny_tofu(), tofu_reference(), max_rows=2)
    assert evaluator.reference["index"].max() == 1
    assert MuseEvaluator(load_muse("news", "mini"), muse_table(), max_rows=3).reference is not None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (muse_table(), "on forget compares 4 rows with a reference of 3 rows"),
        (muse_table().drop(columns="min_k"), "nothing to compare"),
        (tofu_table(), "is of tofu, but the evaluation is of muse other"),
    ],
)
def test_muse_references_are_checked_at_once(reference: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=f"^retain_results: .*{message}"):
        MuseEvaluator(load_muse("news", "mini"), reference, max_rows=4)


def test_muse_reference_without_texts_to_attack() -> None:
    muse = load_muse("news", "mini")
    muse.pop("privleak_holdout")
    with pytest.raises(ValueError, match=r"^retain_results: .*the evaluation has neither"):
        MuseEvaluator(muse, muse_table(), max_rows=3)


@pytest.mark.parametrize(
    ("settings", "tokens", "as_muse", "as_open_unlearning"),
    [
        ({}, None, True, True),  # a log of open-unlearning, which says nothing of lengths
        ({"max_text_tokens": None}, None, True, False),
        ({"max_text_tokens": None}, 2047, True, True),
        ({"max_text_tokens": None}, 2300, True, False),
        ({"max_text_tokens": 2048}, 2048, False, True),
        ({"max_text_tokens": 2048}, 900, True, True),  # none was cut
        ({"max_text_tokens": 512}, 512, False, False),
        ({"max_length": 2048}, 2047, False, False),  # of 0.1
        ({"max_length": 2048}, 900, True, True),
        ({"max_length": 512}, None, False, False),
    ],
)
def test_constants_of_muse_belong_to_its_lengths(
    settings: dict[str, Any], tokens: int | None, as_muse: bool, as_open_unlearning: bool
) -> None:
    table = muse_table()
    if tokens is not None:
        table["answer_tokens"] = tokens
    for corpus, suffix in (("news", "news"), (None, "books")):
        values = aggregate_muse(table, corpus=corpus, settings=settings)
        assert (f"privleak_muse_{suffix}" in values) is as_muse
        assert (f"privleak_open_unlearning_{suffix}" in values) is as_open_unlearning
        assert ("privleak" in values) is (as_muse and corpus is not None)
        assert "privleak_versus_half" in values
    assert aggregate_muse(table, table, "news", settings=settings)["privleak"].value == 0
