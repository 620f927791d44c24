"""What aggregates of all benchmarks share: a checked table, its reference, and values that say what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from unlearn_hf.evaluation.metric_value import MetricValue, metric_value
from unlearn_hf.evaluation.metrics.base import metric_unit
from unlearn_hf.evaluation.metrics.privacy import aggregate_attacks, aggregate_privleak
from unlearn_hf.evaluation.retain_results import check_contribution, has_min_k, has_truth_ratios
from unlearn_hf.evaluation.sample_table import (
    Compatibility,
    Missing,
    Protocol,
    check_compatibility,
    column_values,
    extraction_of,
    prepare_table,
    split_rows,
)


class Aggregates:
    """Values as they accumulate.

    Args:
        samples: per-sample table, one row per (split, index).
        reference: the retain model's table.
        protocol: see `prepare_table`.
        compatibility: whose definitions get the plain names.
        missing: see `prepare_table`.
        settings: recorded with each value.
        fingerprint: hash of the data, recorded with each value.

    Attributes:
        table: the checked table.
        values: what was added, by name.

    Raises:
        ValueError: for malformed tables, and a reference with nothing to compare.
    """

    def __init__(
        self,
        samples: pd.DataFrame,
        reference: pd.DataFrame | None = None,
        protocol: Protocol = "all",
        compatibility: Compatibility = None,
        missing: Missing = "error",
        settings: Mapping[str, Any] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        check_compatibility(compatibility)
        self.table = prepare_table(samples, protocol, missing)
        self.reference = None if reference is None else prepare_table(reference, protocol, missing)
        self.compatibility: Compatibility = compatibility
        self.missing: Missing = missing
        self.record = {"protocol": protocol, "settings": dict(settings or {}), "fingerprint": fingerprint}
        self.values: dict[str, MetricValue] = {}
        if self.reference is not None:
            check_contribution(
                self.reference,
                truth_ratios=has_truth_ratios(self.table),
                min_k=has_min_k(self.table, missing),
                compatibility=compatibility,
                missing=missing,
            )

    def column(self, split: str, name: str) -> NDArray[Any] | None:
        """See `column_values`."""
        return column_values(split_rows(self.table, split), name, self.missing)

    def add(self, name: str, value: float, n: int, definition: str, **optional: Any) -> None:
        """Add a value; `optional` are further fields of `MetricValue`."""
        self.values[name] = metric_value(name, value, n, definition, **self.record, **optional)

    def add_from(self, name: str, values: NDArray[Any] | None, definition: str, **optional: Any) -> None:
        """Add the metric that its unit makes of values per sample, if there are any."""
        if values is not None:
            self.add(name, metric_unit(name).aggregate(values), values.size, definition, **optional)

    def add_memorization(self, split: str, ends: int = 0) -> None:
        """Extraction strength and exact memorisation of a set, where `ends` tokens of each answer are its end."""
        rows = extraction_of(split_rows(self.table, split), self.compatibility, ends)
        strength = column_values(rows, "extraction_strength", self.missing)
        self.add_from("extraction_strength", strength, self.compatibility or "zero_without_match")
        self.add_from("exact_memorization", self.column(split, "exact_memorization"), "teacher_forced")

    def add_privacy(self) -> None:
        """Membership attacks, and PrivLeak relative to the reference."""
        common: dict[str, Any] = {"missing": self.missing, **self.record}
        self.values |= aggregate_attacks(self.table, self.compatibility, **common)
        self.values |= aggregate_privleak(self.table, self.reference, self.compatibility, **common)

    def checked(self, wanted: str) -> dict[str, MetricValue]:
        """All values.

        Args:
            wanted: columns that are looked for, for the error.

        Raises:
            ValueError: if there are none.
        """
        if not self.values:
            raise ValueError(
                f"no metric can be computed from the columns {list(self.table.columns)} of splits "
                f"{sorted(self.table['split'].unique())}; {wanted} are looked for first."
            )
        return self.values
