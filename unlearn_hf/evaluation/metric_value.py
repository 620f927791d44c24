"""Metric values that know what they are: a number with its name, version, definition, protocol and data.

Two numbers can only be compared when they are values of the same thing. The truth ratio alone has four definitions in
use, and forget quality over 300 rows is another statistic than over 400; see `MetricValue.check_comparable`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from unlearn_hf.evaluation.metrics.catalog import describe


@dataclass(frozen=True)
class MetricValue:
    """One aggregate over rows.

    Attributes:
        name: flat metric name, for instance `"model_utility"` or `"forget_truth_ratio_arithmetic"`.
        value: the number; never NaN.
        version: version of our implementation of the metric; raised whenever a value would change.
        higher_is_better: direction; `None` where the best value is a target (0 for PrivLeak, the retrained model's
            AUC for an attack).
        n: rows that went into the value (the smallest of them for a mean over several sets).
        definition: which of several formulas under the same name, for instance `"geometric"`.
        protocol: `"all"` rows, or `"official"`: the first 300 of each set.
        interval: 95 % bootstrap confidence interval `(low, high)`, where one was computed.
        settings: what else the value depends on (generation limits, templates, resamples ...).
        fingerprint: hash of the evaluated data, where known.
    """

    name: str
    value: float
    version: int
    higher_is_better: bool | None
    n: int
    definition: str
    protocol: str = "all"
    interval: tuple[float, float] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        """Refuse NaN: a metric without a value must not exist, or be an error where it arises."""
        if math.isnan(self.value):
            raise ValueError(f"{self.name} is NaN over {self.n} rows. Look for NaN in the columns it is made of.")

    def check_comparable(self, other: MetricValue) -> None:
        """Raise unless both are values of the same metric, over the same rows, by the same formula.

        Raises:
            ValueError: if name, definition, version, protocol, number of rows, or data differ; it names both values
                and the mend.
        """
        fields = ["name", "definition", "version", "protocol", "n"]
        if self.fingerprint is not None and other.fingerprint is not None:
            fields.append("fingerprint")
        for name in fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(
                    f"{self.name} ({self.definition}, protocol {self.protocol}, n={self.n}) cannot be compared with "
                    f"{other.name} ({other.definition}, protocol {other.protocol}, n={other.n}): {name} is {mine!r} "
                    f"on one side and {theirs!r} on the other. {_MENDS[name]}"
                )

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> MetricValue:
        """The value that `dataclasses.asdict`, or JSON of that, holds.

        Raises:
            ValueError: if fields are missing, unknown, or not what they must be.
        """
        try:
            value = cls(**record)
            if value.interval is not None:
                low, high = value.interval
                value = replace(value, interval=(low, high))
        except (TypeError, ValueError) as problem:
            raise ValueError(f"metric record {record.get('name')!r} cannot be read: {problem}.") from problem
        return value


_MENDS = {
    "name": "Compare values of the same metric.",
    "definition": "Recompute both from their per-sample values with one definition.",
    "version": "Recompute both with one version of unlearn_hf.",
    "protocol": 'Recompute both with protocol="official", which takes the first 300 rows of each set.',
    "n": 'Recompute both over the same rows; protocol="official" takes the first 300 of each set.',
    "fingerprint": "They were computed on different data; evaluate both on the same.",
}


def metric_value(name: str, value: float, n: int, definition: str, **optional: Any) -> MetricValue:
    """A `MetricValue` whose version and direction come from the catalog.

    Args:
        name: flat name, with or without a variant suffix.
        value: the number.
        n: rows that went into it.
        definition: formula, see `unlearn_hf.evaluation.metrics.catalog`.
        **optional: the other fields of `MetricValue`.

    Raises:
        ValueError: if the catalog has no such name, or the value is NaN.
    """
    description = describe(name)
    return MetricValue(
        name=name,
        value=float(value),
        version=description.version,
        higher_is_better=description.higher_is_better,
        n=int(n),
        definition=definition,
        **optional,
    )


def flatten(values: Mapping[str, MetricValue]) -> dict[str, float]:
    """Flat metric name -> number."""
    return {name: value.value for name, value in values.items()}
