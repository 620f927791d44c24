"""Every metric of the catalog as an `evaluate.Metric` that is used alone."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import evaluate
import pytest

from unlearn_hf import load_metric
from unlearn_hf.evaluation.metrics.catalog import METRICS, metrics

HALF, QUARTER = math.log(2), math.log(4)
TEXTS = {"predictions": ["a b c d e f", "writing"], "references": ["a b x d e", "writes"]}
SIDES = {"predictions": [0.1, 0.2, 0.3, 0.4], "references": [0, 1, 0, 1]}
# class -> inputs and the value by hand
EXAMPLES: dict[str, tuple[dict[str, Any], float]] = {
    "AnswerProbability": ({"predictions": [HALF, QUARTER]}, 0.375),
    "ChoiceProbability": ({"predictions": [HALF], "references": [[QUARTER, QUARTER]]}, 0.5),
    "WrongProbability": ({"predictions": [[HALF, QUARTER], [HALF]]}, 0.4375),
    "RougeRecall": (TEXTS, (4 / 5 + 1) / 2),
    "RougeF1": (TEXTS, 4 / 5.5 / 2),
    "RougeF1Percent": (TEXTS, 100 * 4 / 5.5 / 2),
    "TruthRatio": ({"predictions": [HALF], "references": [[QUARTER, QUARTER]]}, 0.5),
    "ExactMatch": ({"predictions": [" ADA \n", "Ada M."], "references": ["Ada", "Ada"]}, 0.5),
    "PublishedMean": ({"predictions": [0.5, 1.0]}, 2 / 3),
    "HarmonicMean": ({"predictions": [0.5, 1.0]}, 2 / 3),
    "ExtractionStrength": ({"predictions": [[9, 2, 3, 4], [1, 9]], "references": [[1, 2, 3, 4], [1, 2]]}, 0.375),
    "ExactMemorization": ({"predictions": [[9, 2, 3, 4], [1, 9]], "references": [[1, 2, 3, 4], [1, 2]]}, 0.625),
    "AttackAUC": (SIDES, 0.75),
    "TextAUC": (SIDES, 0.75),
    "DistanceToHalf": (SIDES, 0.5),
    "PrivLeak": ({**SIDES, "retrain_auc": 0.5}, -50.0),
    "Metric": ({"predictions": [0.0, 0.5]}, 0.25),
}
QUALITY = {"forget_quality": 1 / 35, "forget_quality_log10": math.log10(1 / 35), "forget_quality_statistic": 1.0}


@pytest.mark.parametrize("name", list(metrics()))
def test_every_metric_by_hand(name: str) -> None:
    metric = load_metric(name)
    assert isinstance(metric, evaluate.Metric)
    assert metric.description == metrics()[name].summary
    assert metric.citation == metrics()[name].paper
    if name in QUALITY:
        found = metric.compute(predictions=[1.0, 2.0, 3.0, 4.0], references=[5.0, 6.0, 7.0, 8.0])
        assert found[name] == pytest.approx(QUALITY[name])
        return
    inputs, expected = EXAMPLES[type(metric.metric).__name__]
    assert metric.compute(**inputs)[name] == pytest.approx(expected)


def test_metrics_are_combined_as_those_of_evaluate() -> None:
    both = evaluate.combine([load_metric("forget_rouge"), load_metric("forget_verbmem_rouge")])
    found = both.compute(**TEXTS)
    assert found["forget_rouge"] == pytest.approx(0.9)
    assert found["forget_verbmem_rouge_values"][1] == 0.0


def test_inputs_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="could not convert string"):
        load_metric("forget_prob").compute(predictions=["no number"])
    with pytest.raises(ValueError, match="metric 'forget_probe' is unknown"):
        load_metric("forget_probe")


def test_every_metric_says_what_it_needs() -> None:
    assert all(unit.summary and unit.paper and unit.needs for unit in METRICS.values())


def test_the_page_on_metrics_is_up_to_date() -> None:
    script = Path(__file__).parents[2] / "scripts" / "document_metrics.py"
    spec = importlib.util.spec_from_file_location("document_metrics", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == module.FILE.read_text(encoding="utf-8"), "run python scripts/document_metrics.py"
