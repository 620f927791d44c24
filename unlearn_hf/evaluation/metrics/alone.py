"""Metrics for use without an evaluation, as those of the library `evaluate`; they need no network."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from unlearn_hf.evaluation.metrics.base import Metric, metric_unit

_FEATURES: dict[str, Any] = {
    "number": datasets.Value("float64"),
    "numbers": datasets.Sequence(datasets.Value("float64")),
    "text": datasets.Value("string"),
    "tokens": datasets.Sequence(datasets.Value("int64")),
}


class EvaluateMetric(evaluate.Metric):
    """A metric of ours as an `evaluate.Metric`: `compute`, `add_batch`, `evaluate.combine` and all else works.

    Args:
        metric: the metric.
        **options: those of `evaluate.Metric`.
    """

    def __init__(self, metric: Metric, **options: Any) -> None:
        self.metric = metric
        super().__init__(**{"config_name": metric.key, "keep_in_memory": True, **options})

    def _info(self) -> evaluate.MetricInfo:
        inputs = self.metric.inputs
        return evaluate.MetricInfo(
            description=self.metric.summary,
            citation=self.metric.paper,
            inputs_description="; ".join(f"{name}: one {kind} per row" for name, kind in inputs.items()),
            features=datasets.Features({name: _FEATURES[kind] for name, kind in inputs.items()}),
        )

    def _compute(self, **inputs: Any) -> dict[str, Any]:
        return self.metric.compute(**inputs)


def load_metric(name: str, **options: Any) -> EvaluateMetric:
    """A metric of the catalog: `load_metric("forget_prob").compute(predictions=[0.7, 1.2])`.

    Args:
        name: its name, with or without a variant suffix; `unlearn-hf list metrics` names them.
        **options: those of `evaluate.Metric`.

    Raises:
        ValueError: if there is none.
    """
    return EvaluateMetric(metric_unit(name), **options)
