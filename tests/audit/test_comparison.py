"""What came back, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from unlearn_hf.audit.comparison import (
    came_back,
    compare,
    robustness,
    robustness_one_sided,
    robustness_to_quantisation,
    robustness_two_sided,
)
from unlearn_hf.audit.membership import recognised
from unlearn_hf.audit.rewording import reworded
from unlearn_hf.evaluation.metrics.statistics import attack_auc


@pytest.mark.parametrize(
    ("rise", "retain", "one_sided", "two_sided"),
    [
        (0.4, 0.1, 0.25, 1 - 0.3 / 0.5),
        (0.1, 0.4, 1.0, 1 - 0.3 / 0.5),
        (0.2, 0.2, 1.0, 1.0),
        (0.2, -0.1, 0.0, 0.0),
        (-0.2, 0.1, 1.0, 0.0),
        (0.0, 0.0, 1.0, 1.0),
    ],
)
def test_robustness_to_relearning(rise: float, retain: float, one_sided: float, two_sided: float) -> None:
    assert robustness_one_sided(rise, retain) == pytest.approx(one_sided)
    assert robustness_two_sided(rise, retain) == pytest.approx(two_sided)


def test_robustness_to_quantisation_and_place() -> None:
    assert robustness_to_quantisation(0.2, 0.1) == 1
    assert robustness_to_quantisation(0.2, 0.8) == pytest.approx(0.25)
    assert robustness_to_quantisation(0.0, 0.1) == 0
    assert came_back(0.5, 0.2, 0.8) == pytest.approx(0.5)
    assert came_back(0.1, 0.2, 0.8) == pytest.approx(-1 / 6)
    assert came_back(0.5, 0.3, 0.3) is came_back(0.5, 0.3, 0.34) is None


def test_rows_without_a_value_are_left_out_everywhere() -> None:
    columns = {"after": [0.5, None, 0.7], "before": [0.1, 0.9, 0.3], "retain": [0.2, 0.2, 0.2],
               "retain_before": [0.1, 0.1, 0.1], "target": [1, 1, 1]}  # fmt: skip
    found = compare(columns, "R")
    assert found["n"] == 2
    assert found["after"]["value"] == pytest.approx(0.6)
    assert found["rise"]["value"] == pytest.approx(0.4)
    assert found["R_one_sided"]["value"] == pytest.approx(0.25)
    assert found["came_back"]["value"] == pytest.approx(0.5)
    assert found["of_target"]["value"] == pytest.approx(0.6)
    assert compare({"after": [None, None]}, None) == {"n": 0}
    few = {"after": [0.5, 0.6], "before": [0.4, 0.3]}
    assert set(compare(few, "R")) == {"n", "after", "before", "rise"}
    assert "Q" in compare(few, "Q")


def test_intervals_cover_the_truth() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        values = generator.random(50)
        interval = compare({"after": values.tolist()}, None, seed)["after"]
        assert interval["low"] < interval["value"] < interval["high"]
        held += interval["low"] <= 0.5 <= interval["high"]
    assert held >= 88  # 95 % of them on average; fewer than 88 of 100 have a chance below 0.5 %


def test_robustness_is_the_harmonic_mean_and_zero_where_one_is() -> None:
    columns = {"before": [0.2, 0.2], "relearnt": [0.6, 0.6], "quantised": [0.4, 0.4], "retain_before": [0.1, 0.1],
               "retain_relearnt": [0.2, 0.2]}  # fmt: skip
    found = robustness(columns)["robustness"]
    assert found["value"] == pytest.approx(2 / (1 / 0.25 + 1 / 0.5))
    assert found["low"] == found["high"] == pytest.approx(found["value"])
    assert robustness({**columns, "retain_relearnt": [0.1, 0.1]})["robustness"]["value"] == 0


def test_the_mean_of_recognised_rows_is_the_auc() -> None:
    generator = np.random.default_rng(0)
    forget, holdout = generator.integers(0, 9, 30) / 3, generator.integers(0, 9, 20) / 3  # with ties
    shares = recognised(forget.tolist(), holdout.tolist())
    assert np.mean(shares) == pytest.approx(attack_auc(forget, holdout))  # type: ignore[arg-type]
    assert recognised([1.0, None, float("nan")], [2.0, None]) == [1.0, None, None]


def test_wordings() -> None:
    rows = [{"question": "Who {wrote} it?", "answer": "Ada.", "paraphrased_question": "By whom?"}]
    assert reworded(rows, "paraphrase") == [{**rows[0], "question": "By whom?"}]
    assert reworded([{"question": "Who?", "answer": "Ada."}], "paraphrase") is None
    instructed = reworded(rows, "instruction")
    assert instructed is not None
    assert instructed[0]["question"].endswith("Who {wrote} it?")
    assert reworded(rows, "sure") == rows
