"""What aggregates of all benchmarks share: a checked table, its reference, and values that say what they are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from unlearn_hf.evaluation.attacks.base import ATTACKS
from unlearn_hf.evaluation.metric_value import MetricValue, metric_value
from unlearn_hf.evaluation.metrics.base import metric_unit
from unlearn_hf.evaluation.metrics.privacy import attack_sides, paired_auc, table_auc
from unlearn_hf.evaluation.metrics.statistics import bootstrap_auc_interval, privleak_muse, privleak_open_unlearning
from unlearn_hf.evaluation.retain_results import check_contribution, has_min_k, has_truth_ratios
from unlearn_hf.evaluation.sample_table import (
    Compatibility,
    Missing,
    Protocol,
    check_choices,
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
        check_choices(protocol, compatibility)
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

    def add_attacks(self) -> None:
        """`mia_<attack>_auc` with a 95 % bootstrap interval, for each attack whose scores the table has."""
        for attack, unit in ATTACKS.items():
            if (sides := attack_sides(self.table, attack, self.missing)) is not None:
                area, texts = unit.aggregate(*sides), sum(map(len, sides))
                interval = bootstrap_auc_interval(*sides)
                self.add(f"mia_{attack}_auc", area, texts, unit.definition(self.compatibility), interval=interval)

    def add_privleak(self) -> None:
        """PrivLeak from Min-K scores, relative to a retrained model.

        That is `privleak` against the reference (MUSE's ratio; open-unlearning's, which differs by 1e-10, with that
        compatibility) and `privleak_versus_half` against an AUC of 0.5. Without a reference, `privleak` exists only
        with `compatibility="open_unlearning"`, where it is the value against 0.5, as that framework reports it. A
        reference with an AUC of 1 leaves it undefined: a warning says so.

        Raises:
            ValueError: if the reference is over other forget or holdout rows.
        """
        area = table_auc(self.table, "min_k", self.missing)
        if area is None:
            return
        auc, n = area
        half = privleak_open_unlearning(auc)
        self.add("privleak_versus_half", half, n, "open_unlearning_reference_0.5")
        pair = None if self.reference is None else paired_auc(self.table, self.reference, "min_k", self.missing)
        if pair is None:
            if self.compatibility:
                self.add("privleak", half, n, "open_unlearning_reference_0.5")
        elif self.compatibility:
            self.add("privleak", privleak_open_unlearning(*pair), n, "open_unlearning_reference_log")
        elif pair[1] == 1:
            warnings.warn(
                "PrivLeak is left out: the reference recognises every forget text (its AUC is 1), and PrivLeak "
                "divides by one minus that. Is the reference a model that never saw the forget set?",
                stacklevel=2,
            )
        else:
            self.add("privleak", privleak_muse(1 - auc, 1 - pair[1]), n, "muse_reference_log")

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
