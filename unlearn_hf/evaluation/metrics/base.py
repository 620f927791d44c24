"""What a metric is: values per sample, an aggregate, and what it needs of a table.

Everything here works without torch, so that logs are recomputed at once. `unlearn_hf.evaluation.metrics.alone` makes
an `evaluate.Metric` of each, for use without an evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pkgutil import resolve_name
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearn_hf.evaluation.metric_value import MetricValue, metric_value
from unlearn_hf.evaluation.metrics.catalog import METRICS, MetricDescription, describe
from unlearn_hf.evaluation.sample_table import Missing, split_rows

Kind = Literal["number", "numbers", "text", "tokens"]


class Metric:
    """A metric; a subclass says what it takes and overrides `per_sample`, and `aggregate` if that is no mean.

    Args:
        name: which of the metrics of the catalog that this class computes; a class with a name of its own needs none.

    Attributes:
        name: flat name.
        summary: one line.
        paper: where it comes from.
        higher_is_better: direction; `None` where the best value is that of a retrained model.
        version: of our implementation.
        definition: which of several formulas under this name.
        inputs: input -> what each row of it is.
        split: the set of rows that evaluation computes it on.
        columns: input -> column of the per-sample table; evaluation computes a metric where they are there.
    """

    name: str = ""
    summary: str = ""
    paper: str = ""
    higher_is_better: bool | None = None
    version: int = 1
    definition: str = "mean"
    inputs: ClassVar[Mapping[str, Kind]] = {"predictions": "number"}
    split: str = "forget"
    columns: ClassVar[Mapping[str, str]] = {}

    def __init__(self, name: str | None = None) -> None:
        if name is not None:
            facts = describe(name)
            self.summary, self.paper, self.version = facts.summary, facts.paper, facts.version
            self.higher_is_better = facts.higher_is_better
        self.key = name or type(self).name or type(self).__name__

    def per_sample(self, **inputs: Any) -> NDArray[np.float64]:
        """One value per row, shape `[n]`."""
        return np.asarray(inputs["predictions"], dtype=np.float64)

    def aggregate(self, values: Any) -> float:
        """The metric from the values of all rows."""
        return float(np.mean(values))

    def compute(self, **inputs: Any) -> dict[str, Any]:
        """The metric by its name, and the values per sample as `<name>_values`."""
        values = np.asarray(self.per_sample(**inputs), dtype=np.float64)
        return {self.key: self.aggregate(values), f"{self.key}_values": values.tolist()}

    def of_table(self, table: pd.DataFrame, missing: Missing, **record: Any) -> MetricValue | None:
        """Its value on a per-sample table, `None` where the table lacks a column or all of its values.

        Raises:
            ValueError: if some rows have a value and others not, and `missing` is `"error"`.
        """
        rows = split_rows(table, self.split)
        names = list(self.columns.values())
        if not names or rows.empty or any(name not in rows or rows[name].isna().all() for name in names):
            return None
        present = rows[names].notna().all(axis=1)
        if missing == "error" and not present.all():
            where = rows.loc[~present, "index"].tolist()
            raise ValueError(
                f"{self.key} needs {', '.join(names)} of {self.split}, which {len(where)} of {len(rows)} rows lack, "
                f'first index {where[:5]}. Evaluate them, or pass missing="skip" to leave them out.'
            )
        complete = rows[present]
        values = self.per_sample(**{each: complete[name].tolist() for each, name in self.columns.items()})
        value = self.aggregate(np.asarray(values, dtype=np.float64))
        return metric_value(self.key, value, len(complete), self.definition, **record)


@cache
def metric_unit(name: str) -> Metric:
    """The metric of this name.

    Raises:
        ValueError: if there is none.
    """
    facts = describe(name)
    if isinstance(facts, MetricDescription):
        metric: Metric = resolve_name(facts.unit)(name)
        return metric
    added: Metric = facts()
    return added


def added_metrics(table: pd.DataFrame, missing: Missing = "error", **record: Any) -> dict[str, MetricValue]:
    """Values of the metrics that other packages have registered, where the table has what they need.

    Args:
        table: per-sample table.
        missing: see `prepare_table`.
        **record: further fields of `MetricValue`.
    """
    found = {}
    for name in METRICS:
        unit = METRICS[name]
        if not isinstance(unit, MetricDescription):
            value = unit().of_table(table, missing, **record)
            if value is not None:
                found[name] = value
    return found
