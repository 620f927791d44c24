from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tests.evaluation.tables import nll, three_rows, tofu_table
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.evaluation.metric_value import flatten
from unlearn_hf.evaluation.metrics.truth_ratio import truth_ratio

BY_HAND = {
    "forget_prob": (0.5 + 0.25 + 1) / 3,
    "forget_rouge": 0.5,
    "forget_paraphrase_prob": (0.5 + 0.2 + 0.1) / 3,
    # R = 0.25 / 0.5, 0.2 / 0.2, 0.2 / 0.1; min(R, 1/R) = 0.5, 1, 0.5
    "forget_truth_ratio": 2 / 3,
    # R = 0.25 / 0.5, 0.25 / 0.2, 0.25 / 0.1; min(R, 1/R) = 0.5, 0.8, 0.4
    "forget_truth_ratio_arithmetic": 1.7 / 3,
    "forget_truth_ratio_prob_mean": (2 / 3 + 1 / 2 + 1 / 3) / 3,
    # max(0, 1 - R) = 0.5, 0, 0 by both
    "retain_prob": 1.75 / 3,
    "retain_rouge": 0.5,
    "retain_truth_ratio": 0.5 / 3,
    "retain_truth_ratio_arithmetic": 0.5 / 3,
    # 0.5 of 1.0, 0.2 of 0.7, 0.1 of 0.6
    "real_authors_prob": (1 / 2 + 2 / 7 + 1 / 6) / 3,
    "real_authors_truth_ratio": 0.5 / 3,
    "world_facts_rouge": 0.5,
    "model_utility": 9 / (1 / (1.75 / 3) + 2 / ((1 / 2 + 2 / 7 + 1 / 6) / 3) + 3 / 0.5 + 3 / (0.5 / 3)),
    "extraction_strength": 0.5,
    "exact_memorization": 2 / 3,
    # forget 1, 2, 4 against holdout 2, 3, 3
    "mia_min_k_auc": 5.5 / 9,
    "privleak_versus_half": 100 * ((1 - 5.5 / 9) - 0.5) / 0.5,
    # 1 minus extraction strength, exact memorisation, paraphrase probability and prob_mean truth ratio
    "memorization": 4 / (1 / 0.5 + 1 / (1 / 3) + 1 / (1 - 0.8 / 3) + 1 / 0.5),
}


@pytest.mark.parametrize(("name", "value"), BY_HAND.items())
def test_by_hand(name: str, value: float) -> None:
    result = aggregate_tofu(tofu_table())[name]
    assert result.value == pytest.approx(value, rel=1e-9)
    assert result.n == (6 if name.startswith(("mia", "privleak")) else 3)


def test_compatibility_by_hand() -> None:
    ours, theirs = aggregate_tofu(tofu_table()), aggregate_tofu(tofu_table(), compatibility="open_unlearning")
    # No suffix of the third answer is predicted: 1/n with n = 4 tokens before the end of text.
    assert theirs["extraction_strength"].value == (1 + 0.5 + 0.25) / 3
    assert theirs["privleak"].value == theirs["privleak_versus_half"].value  # 0.5 where there is no reference
    assert "privleak" not in ours
    ratio = 0.25 / (0.5 + 1e-10), 0.2 / (0.2 + 1e-10), 0.2 / (0.1 + 1e-10)
    expected = (ratio[0] + ratio[1] + 1 / (ratio[2] + 1e-10)) / 3
    assert theirs["forget_truth_ratio"].value == pytest.approx(expected, rel=1e-14)
    choice = (0.5 / (1 + 1e-10) + 0.2 / (0.7 + 1e-10) + 0.1 / (0.6 + 1e-10)) / 3
    assert theirs["real_authors_prob"].value == pytest.approx(choice, rel=1e-14)
    for name in ("forget_truth_ratio", "model_utility", "real_authors_prob"):
        assert theirs[f"{name}_geometric"].value == ours[name].value
        assert ours[f"{name}_open_unlearning"].value == theirs[name].value
        assert ours[name].definition != theirs[name].definition


def test_forget_quality_by_hand() -> None:
    # Truth ratios 0.5, 1, 2 against 1.5, 3, 6: 12 of the 20 interleavings are at least as far apart.
    reference = tofu_table()
    reference.loc[reference["split"] == "forget", "paraphrase_mean_nll"] += math.log(3)
    values = aggregate_tofu(tofu_table(), reference)
    assert values["forget_quality"].value == pytest.approx(12 / 20)
    assert values["forget_quality_statistic"].value == pytest.approx(2 / 3)
    # Against 7.5, 15, 30 they are separated: p = 2 / C(6, 3).
    reference.loc[reference["split"] == "forget", "paraphrase_mean_nll"] += math.log(5)
    values = aggregate_tofu(tofu_table(), reference)
    assert values["forget_quality"].value == pytest.approx(2 / 20)
    assert values["forget_quality_log10"].value == pytest.approx(-1)
    assert values["privleak"].value == 0  # the scores are the same
    assert aggregate_tofu(tofu_table(), tofu_table())["forget_quality"].value == 1


def test_row_order_does_not_matter() -> None:
    table = tofu_table()
    shuffled = table.sample(frac=1, random_state=3)
    assert flatten(aggregate_tofu(table, table)) == flatten(aggregate_tofu(shuffled, shuffled))


def test_protocol_official_takes_the_first_300_rows() -> None:
    rows = [{"split": "retain", "index": i, "answer_mean_nll": nll(1.0 if i < 300 else 0.5)} for i in range(400)]
    table = pd.DataFrame(rows)
    every, official = aggregate_tofu(table)["retain_prob"], aggregate_tofu(table, protocol="official")["retain_prob"]
    assert (every.value, every.n, every.protocol) == (0.875, 400, "all")
    assert (official.value, official.n, official.protocol) == (1.0, 300, "official")
    with pytest.raises(ValueError, match="protocol is 'all' on one side"):
        every.check_comparable(official)


def test_absent_columns_leave_metrics_out() -> None:
    forget_only = pd.DataFrame(three_rows("forget")).drop(columns="rouge_l_recall")
    assert set(aggregate_tofu(forget_only)) == {
        "forget_prob",
        "forget_paraphrase_prob",
        "forget_perturbed_prob",
        "forget_truth_ratio",
        "forget_truth_ratio_arithmetic",
        "forget_truth_ratio_open_unlearning",
        "forget_truth_ratio_prob_mean",
    }
    with pytest.raises(ValueError, match="no metric can be computed"):
        aggregate_tofu(pd.DataFrame({"split": ["forget"], "index": [0]}))


@pytest.mark.parametrize(("log_probability", "utility"), [(-1000.0, 0.0), (-30.0, None)])
def test_collapsed_models_have_defined_values(log_probability: float, utility: float | None) -> None:
    """Likelihoods far below the smallest float are still numbers, not 0 / 0."""
    table = tofu_table()
    scored = table["answer_mean_nll"].notna()
    table.loc[scored, "answer_mean_nll"] = -log_probability
    table.loc[table["paraphrase_mean_nll"].notna(), "paraphrase_mean_nll"] = -log_probability
    table["perturbed_mean_nll"] = [[-log_probability] * 2 if flag else None for flag in scored]
    table["rouge_l_recall"] = table["rouge_l_recall"].where(table["rouge_l_recall"].isna(), 0.0)
    for compatibility in (None, "open_unlearning"):
        values = flatten(aggregate_tofu(table, table, compatibility=compatibility))  # type: ignore[arg-type]
        assert all(np.isfinite(value) for value in values.values())
        assert values["model_utility"] == 0  # a model that outputs nothing has ROUGE 0
        if compatibility is None:
            assert values["forget_truth_ratio"] == 1
            assert values["real_authors_prob"] == pytest.approx(1 / 3)


def test_infinite_losses() -> None:
    rows = pd.DataFrame(three_rows("forget"))
    rows.loc[0, "paraphrase_mean_nll"] = math.inf  # R is infinite, its score 0
    assert aggregate_tofu(rows)["forget_truth_ratio"].value == pytest.approx((0 + 1 + 0.5) / 3)
    rows.at[0, "perturbed_mean_nll"] = [math.inf, math.inf]
    with pytest.raises(ValueError, match=r"truth ratio is not defined in rows \[0\]"):
        aggregate_tofu(rows)


def change(column: str, value: object, row: int = 1) -> pd.DataFrame:
    table = tofu_table()
    table[column] = table[column].astype(object)
    table.at[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (change("answer_mean_nll", math.nan), r"answer_mean_nll of forget is NaN in 1 of 3 rows, first index \[1\]"),
        (change("perturbed_mean_nll", [1.0, math.nan]), "perturbed_mean_nll of forget is NaN in 1 of 3"),
        (change("perturbed_mean_nll", []), "no wrong answer in rows"),
        (change("rouge_l_recall", None), r"rouge_l_recall of forget is missing in 1 of 3 rows.*missing=.skip"),
        (change("index", 0), r"1 rows of the per-sample table are duplicates, first \['forget', 0\]"),
        (pd.DataFrame({"split": []}), r"lacks the columns \['index'\]"),
        (pd.DataFrame({"split": [], "index": []}), "has no rows"),
    ],
)
def test_malformed_tables_are_refused(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        aggregate_tofu(table)


def test_a_diverged_model_is_an_error_not_an_absent_metric() -> None:
    table = tofu_table()
    table.loc[table["split"] == "forget", "answer_mean_nll"] = math.nan
    with pytest.raises(ValueError, match="answer_mean_nll of forget is NaN in 3 of 3"):
        aggregate_tofu(table)


def test_missing_rows_can_be_left_out() -> None:
    table = change("rouge_l_recall", None)
    result = aggregate_tofu(table, missing="skip")["forget_rouge"]
    assert (result.value, result.n) == (0.5, 2)


def test_unknown_arguments_are_named() -> None:
    for options in ({"protocol": "first"}, {"compatibility": "tofu"}, {"missing": "drop"}):
        name, value = next(iter(options.items()))
        with pytest.raises(ValueError, match=f"{name}: '{value}' is not known"):
            aggregate_tofu(tofu_table(), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="definition: 'median' is not known"):
        truth_ratio(np.ones(1), [np.ones(1)], "median")


def test_references_must_match() -> None:
    table = tofu_table()
    fewer = table[~((table["split"] == "forget") & (table["index"] == 2))]
    with pytest.raises(ValueError, match=r"3 rows with a reference of 2 rows.*protocol='official'"):
        aggregate_tofu(table, fewer)
    with pytest.raises(ValueError, match="the reference has neither truth ratios"):
        aggregate_tofu(table, table[table["split"] == "retain"])
    texts = table.assign(reference_text=[f"Answer {i}." for i in range(len(table))])
    other = table.assign(reference_text=[f"Text {i} of something else" for i in range(len(table))])
    with pytest.raises(ValueError, match="only 0% of the reference answers agree"):
        aggregate_tofu(texts, other)
    assert aggregate_tofu(texts, texts.assign(reference_text=texts["reference_text"].str.upper() + " "))


def test_reference_of_another_tokenizer_is_refused() -> None:
    rows = [{"split": "forget", "index": i, "paraphrase_mean_nll": 1.0 + i, "perturbed_mean_nll": [2.0],
             "paraphrase_tokens": 5 + i % 7} for i in range(30)]  # fmt: skip
    table = pd.DataFrame(rows)
    assert aggregate_tofu(table, table.assign(paraphrase_tokens=table["paraphrase_tokens"] + 2))["forget_quality"]
    with pytest.raises(ValueError, match="no common offset"):
        aggregate_tofu(table, table.assign(paraphrase_tokens=table["paraphrase_tokens"] * 2))


def test_plain_probabilities_of_all_answers() -> None:
    """The six aggregates of open-unlearning beside those of TOFU: wrong answers, and answers of the options."""
    found = flatten(aggregate_tofu(tofu_table()))
    for split in ("forget", "retain", "real_authors", "world_facts"):
        assert found[f"{split}_perturbed_prob"] == pytest.approx(0.25)
    for split in ("real_authors", "world_facts"):
        assert found[f"{split}_answer_prob"] == pytest.approx((0.5 + 0.2 + 0.1) / 3)
