"""Bootstrap intervals of metrics, from their values per sample.

What a metric takes of a table stands in the catalog (`needs`). An interval is only given where these values make the
number that stands in the results, so that a log of another definition never gets an interval of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearn_hf.evaluation.metric_value import MetricValue
from unlearn_hf.evaluation.metrics.base import metric_unit
from unlearn_hf.evaluation.metrics.catalog import MetricDescription, describe, is_metric
from unlearn_hf.evaluation.metrics.composite import UTILITY_PARTS, UTILITY_SETS
from unlearn_hf.evaluation.metrics.statistics import bootstrap_interval, resample_counts
from unlearn_hf.evaluation.sample_table import split_rows

Array = NDArray[np.float64]
_RESAMPLES = 2000
_NEEDS = re.compile(r"([a-z0-9_]+(?:, [a-z0-9_]+)*) of ([a-z_]+)(?: \(.*\))?")


def bootstrap_intervals(
    values: Mapping[str, MetricValue], table: pd.DataFrame | None
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals over rows, each set resampled by itself (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: metrics by name; those that bring an interval keep it.
        table: their per-sample table; without one there are no further intervals.

    Returns:
        Metric -> `(low, high)`, for means over rows and for model utility.
    """
    found = {name: value.interval for name, value in values.items() if value.interval is not None}
    if table is None:
        return found
    for name, value in values.items():
        if name not in found and (sample := per_sample(value, table)) is not None:
            scale = metric_unit(name).aggregate(np.ones(1))  # MUSE gives percent
            low, high = bootstrap_interval(sample, _RESAMPLES)
            found[name] = (scale * low, scale * high)
    utility = values.get("model_utility")
    if utility is not None and (interval := _utility_interval(utility, values, table)) is not None:
        found["model_utility"] = interval
    return found


def per_sample(value: MetricValue, table: pd.DataFrame) -> Array | None:
    """The values whose mean a metric is, `None` where they are not in the table or make another number."""
    facts = describe(value.name) if is_metric(value.name) else None
    needs = _NEEDS.fullmatch(facts.needs) if isinstance(facts, MetricDescription) else None
    if needs is None:
        return None
    rows, columns = split_rows(table, needs[2]), needs[1].split(", ")
    if value.protocol == "official":
        rows = rows[rows["index"] < 300]
    if any(name not in rows for name in columns):
        return None
    rows = rows[rows[columns].notna().all(axis=1)]
    unit = metric_unit(value.name)
    inputs = dict(zip(unit.inputs, (rows[name].tolist() for name in columns), strict=False))
    if rows.empty or len(inputs) < len(columns):
        return None
    computed = "_mean_nll" in columns[0]  # other columns hold the values themselves
    sample = unit.per_sample(**inputs) if computed else rows[columns[0]].to_numpy(np.float64)
    same = len(sample) == value.n and np.isclose(unit.aggregate(sample), value.value, rtol=1e-6, atol=1e-9)
    return np.asarray(sample, dtype=np.float64) if same else None


def _utility_interval(
    utility: MetricValue, values: Mapping[str, MetricValue], table: pd.DataFrame
) -> tuple[float, float] | None:
    """Of the harmonic mean of nine means: the rows of a set are drawn once for its three metrics."""
    generator = np.random.default_rng(0)
    inverse = np.zeros(_RESAMPLES)
    whole = 0.0
    for split in UTILITY_SETS:
        parts = [values.get(f"{split}_{part}") for part in UTILITY_PARTS]
        samples = [None if part is None else per_sample(part, table) for part in parts]
        complete = [sample for sample in samples if sample is not None]
        if len(complete) < len(samples) or len({len(sample) for sample in complete}) > 1:
            return None
        rows = len(complete[0])
        counts = resample_counts(generator, rows, _RESAMPLES)
        with np.errstate(divide="ignore"):
            for sample in complete:
                inverse += 1 / (counts @ sample / rows)
                whole += 1 / sample.mean()
    if not np.isclose(9 / whole, utility.value, rtol=1e-6):
        return None
    low, high = np.quantile(9 / inverse, [0.025, 0.975])
    return float(low), float(high)
