from __future__ import annotations

import pytest

from tests.evaluation.tables import muse_table
from unlearn_hf.benchmarks.muse.metrics import aggregate_muse


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("verbmem_forget", 50),
        ("forget_verbmem_rouge", 0.5),
        ("knowmem_forget", 30),
        ("knowmem_retain", 90),
        ("mia_min_k_auc", 5.5 / 9),
        ("mia_min_k_auc_muse", 3.5 / 9),
        ("privleak_muse_news", 100 * (3.5 / 9 - 0.4772) / 0.4772),
        ("privleak_muse_books", 100 * (3.5 / 9 - 0.5393) / 0.5393),
        ("privleak_versus_half", 100 * (3.5 / 9 - 0.5) / 0.5),
    ],
)
def test_by_hand(name: str, value: float) -> None:
    assert aggregate_muse(muse_table())[name].value == pytest.approx(value, rel=1e-9)


def test_privleak_without_a_reference_is_that_of_the_corpus() -> None:
    values = aggregate_muse(muse_table(), corpus="books")
    assert values["privleak"].value == values["privleak_muse_books"].value
    assert values["privleak"].definition == "muse_constant_books"
    assert "privleak_muse_news" not in values
    assert "privleak" not in aggregate_muse(muse_table())
    assert aggregate_muse(muse_table(), muse_table(), corpus="books")["privleak"].value == 0


def test_intervals_and_definitions() -> None:
    values = aggregate_muse(muse_table())
    low, high = values["verbmem_forget"].interval
    assert (low, high) == (0, 100)  # three values: a resample of only the lowest has probability 1/27
    assert values["verbmem_forget"].definition == "rouge_l_f1_unstemmed"
    other = aggregate_muse(muse_table(), compatibility="open_unlearning")
    assert other["verbmem_forget"].definition == "rouge_l_f1_stemmed"
    with pytest.raises(ValueError, match="definition is"):
        values["verbmem_forget"].check_comparable(other["verbmem_forget"])


def test_memorisation_of_the_continuations() -> None:
    table = muse_table()
    table.loc[table["split"] == "verbmem_forget", "extraction_strength"] = [0.0, 0.5, 1.0]
    table.loc[table["split"] == "verbmem_forget", "exact_memorization"] = [0.0, 0.0, 0.75]
    values = aggregate_muse(table)
    assert values["extraction_strength"].value == 0.5
    assert values["exact_memorization"].value == 0.25


def test_errors() -> None:
    with pytest.raises(ValueError, match="corpus: 'papers' is not known"):
        aggregate_muse(muse_table(), corpus="papers")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="compatibility: 'muse' is not known"):
        aggregate_muse(muse_table(), compatibility="muse")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no metric can be computed"):
        aggregate_muse(muse_table()[["split", "index"]])
    with pytest.raises(ValueError, match="rouge_l_f1 of verbmem_forget is missing in 1 of 3 rows"):
        aggregate_muse(muse_table().replace({"rouge_l_f1": {0.0: None}}))
