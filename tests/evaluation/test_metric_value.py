from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pytest

from unlearn_hf.evaluation.metric_value import MetricValue, flatten, metric_value
from unlearn_hf.evaluation.metrics.catalog import METRICS, describe


def value(**changes: object) -> MetricValue:
    base = metric_value("forget_truth_ratio", 0.5, 400, "geometric", fingerprint="abc")
    return replace(base, **changes)  # type: ignore[arg-type]


def test_comparable_values() -> None:
    value(value=0.75).check_comparable(value())
    value(fingerprint=None).check_comparable(value(fingerprint="other"))  # unknown data cannot disagree


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"definition": "prob_mean"}, r"geometric, protocol all, n=400\).*prob_mean.*definition is.*Recompute both"),
        ({"protocol": "official", "n": 300}, r"protocol is 'all' on one side and 'official'.*protocol=.official"),
        ({"n": 300}, r"n is 400 on one side and 300 on the other.*first 300"),
        ({"version": 2}, "version is 1 on one side and 2"),
        ({"name": "retain_truth_ratio"}, "Compare values of the same metric"),
        ({"fingerprint": "other"}, "different data"),
    ],
)
def test_values_of_different_definitions_are_not_compared(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        value().check_comparable(value(**changes))


def test_nan_is_never_a_value() -> None:
    with pytest.raises(ValueError, match="forget_truth_ratio is NaN over 400 rows"):
        value(value=math.nan)


def test_round_trip_is_exact() -> None:
    original = value(value=1 / 3, interval=(0.1 + 0.2, 0.7), settings={"max_new_tokens": 200})
    assert MetricValue.from_dict(json.loads(json.dumps(asdict(original)))) == original


def test_broken_records_are_named() -> None:
    record = asdict(value())
    del record["definition"]
    with pytest.raises(ValueError, match="missing 1 required positional argument: 'definition'"):
        MetricValue.from_dict(record)
    with pytest.raises(ValueError, match="unexpected keyword argument 'extra'"):
        MetricValue.from_dict({**asdict(value()), "extra": 1})
    for interval in ([0.1], [0.1, 0.2, 0.3], 0.1):
        with pytest.raises(ValueError, match="metric record 'forget_truth_ratio' cannot be read"):
            MetricValue.from_dict({**asdict(value()), "interval": interval})


def test_directions() -> None:
    assert describe("forget_prob").higher_is_better is False
    assert describe("retain_prob").higher_is_better is True
    assert describe("forget_truth_ratio_arithmetic").higher_is_better is True
    assert describe("forget_truth_ratio_prob_mean").higher_is_better is False  # what is still known of the forget set
    assert describe("retain_truth_ratio_prob_mean").higher_is_better is True
    assert describe("privleak_muse_news").higher_is_better is None
    with pytest.raises(ValueError, match="'no_such_metric' is unknown"):
        describe("no_such_metric")


def test_catalog_is_complete_and_flat() -> None:
    assert all(entry.summary and entry.paper for entry in METRICS.values())
    assert flatten({"forget_truth_ratio": value()}) == {"forget_truth_ratio": 0.5}
