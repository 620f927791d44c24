"""TOFU's aggregates from a per-sample table.

Where published definitions differ, `compatibility` chooses which one carries the plain name; the others get a suffix.

| value | default | compatibility="open_unlearning" |
| --- | --- | --- |
| `*_truth_ratio`, `forget_quality` | geometric (leaderboard) | 1e-10 in the denominators, see `truth_ratio` |
| `real_authors_prob`, `world_facts_prob` | P(right) / sum of all options | 1e-10 added to the denominator |
| `*_prob` of logged rows | exp(-mean NLL) in float64 | the logged float32 probability, where there is one |
| `mia_gradient_norm_auc` | norm of the gradient of the answer's loss with its end of text | without it |
| `extraction_strength` | 0 when no suffix of the answer is predicted | 1/n there, n answer tokens, no end of text |
| `privleak` | MUSE's ratio | 1e-10 added to its denominator, reference AUC 0.5 without a reference |

Everything else is the same number by both. Model utility differs by some 1e-9, the rest below one row's weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearn_hf.evaluation.metric_value import MetricValue
from unlearn_hf.evaluation.metrics.aggregates import Aggregates
from unlearn_hf.evaluation.metrics.base import metric_unit
from unlearn_hf.evaluation.metrics.composite import UTILITY_SETS, add_composites
from unlearn_hf.evaluation.metrics.forget_quality import ForgetQuality
from unlearn_hf.evaluation.metrics.statistics import kolmogorov_smirnov
from unlearn_hf.evaluation.metrics.truth_ratio import (
    DEFINITIONS,
    Definition,
    available_definitions,
    rows_truth_ratio,
    truth_ratio_scores,
)
from unlearn_hf.evaluation.retain_results import has_truth_ratios
from unlearn_hf.evaluation.sample_table import (
    Compatibility,
    Missing,
    Protocol,
    check_same_rows,
    column_values,
    split_rows,
)

Array = NDArray[np.float64]
_OPTION_SPLITS = ("real_authors", "world_facts")
_SPLITS = ("forget", "retain", *_OPTION_SPLITS)


def aggregate_tofu(
    samples: pd.DataFrame,
    reference: pd.DataFrame | None = None,
    protocol: Protocol = "all",
    compatibility: Compatibility = None,
    *,
    missing: Missing = "error",
    settings: Mapping[str, Any] | None = None,
    fingerprint: str | None = None,
) -> dict[str, MetricValue]:
    """Every TOFU aggregate that the table has the columns for, by flat name.

    Args:
        samples: per-sample table, one row per (split, index).
        reference: the retain model's table over the same forget rows; forget quality and PrivLeak need it.
        protocol: `"all"` rows, or `"official"`: the first 300 of each set, of both tables.
        compatibility: `"open_unlearning"` gives plain names to that framework's definitions.
        missing: see `prepare_table`.
        settings: recorded with each value.
        fingerprint: hash of the data, recorded with each value.

    Returns:
        Name -> `MetricValue`. A metric whose columns are absent is left out: model utility without one of its nine
        components, forget quality without `reference`.

    Raises:
        ValueError: for malformed tables, NaN likelihoods, and a reference over other rows, of another truth ratio
            definition, or with nothing to compare.
    """
    found = _TofuAggregates(samples, reference, protocol, compatibility, missing, settings, fingerprint)
    for split in _SPLITS:
        found.add_split(split, split_rows(found.table, split))
    found.add_model_utility()
    found.add_forget_quality()
    found.add_memorization("forget", ends=1)
    found.add_attacks()
    found.add_privleak()
    values = found.checked("answer_mean_nll and rouge_l_recall")
    add_composites(found)
    return values


class _TofuAggregates(Aggregates):
    @property
    def primary(self) -> Definition:
        """The definition that gets the plain names."""
        return self.compatibility or "geometric"

    def name(self, base: str, definition: str) -> str:
        return base if definition == self.primary else f"{base}_{definition}"

    def add_split(self, split: str, rows: pd.DataFrame) -> None:
        """Prob, ROUGE and truth ratio of one set."""
        options = split in _OPTION_SPLITS
        variants: tuple[Definition, ...] = ("geometric", "open_unlearning") if options else (self.primary,)
        for variant in variants:
            definition = f"multiple_choice_{variant}" if options else "mean"
            self.add_from(
                self.name(f"{split}_prob", variant), answer_probability(rows, variant, self.missing), definition
            )
        self.add_from(f"{split}_rouge", self.column(split, "rouge_l_recall"), "rouge_l_recall_stemmed")
        other = "answer" if options else "paraphrase"
        probabilities = _probability(rows, other, self.primary, self.missing)
        self.add_from(f"{split}_{other}_prob", probabilities, "mean")
        for definition in DEFINITIONS:
            ratio = rows_truth_ratio(rows, definition)
            if ratio is not None:
                scores = truth_ratio_scores(ratio, definition, forget=split == "forget")
                self.add_from(self.name(f"{split}_truth_ratio", definition), scores, definition)
        if "perturbed_mean_nll" in rows and (wrong := rows[rows["perturbed_mean_nll"].notna()]).size:
            means = [float(np.mean(each)) for each in _wrong_probabilities(wrong, self.primary)]
            self.add_from(f"{split}_perturbed_prob", np.asarray(means), "mean")

    def add_model_utility(self) -> None:
        """Harmonic mean of the nine components, for each definition of the truth ratio that has all nine."""
        for definition in ("geometric", "arithmetic", "open_unlearning"):
            # The arithmetic variant changes the truth ratio alone.
            options = "open_unlearning" if definition == "open_unlearning" else "geometric"
            names = []
            for split in UTILITY_SETS:
                probability = f"{split}_prob"
                names += [
                    self.name(probability, options) if split in _OPTION_SPLITS else probability,
                    f"{split}_rouge",
                    self.name(f"{split}_truth_ratio", definition),
                ]
            if all(name in self.values for name in names):
                components = {name: self.values[name].value for name in names}
                rows = min(self.values[name].n for name in names)
                name = self.name("model_utility", definition)
                self.add(name, metric_unit(name).aggregate(components), rows, definition)

    def add_forget_quality(self) -> None:
        """KS tests between truth ratios of the forget rows and the retain model's, for each definition that both have.

        `prob_mean` appears only where both sides hold nothing else: its ranks are those of the others except for
        likelihoods near 1e-10.

        Raises:
            ValueError: if the rows differ, or the sides have no definition in common; it names both and the mend.
        """
        if self.reference is None or not (has_truth_ratios(self.table) and has_truth_ratios(self.reference)):
            return
        rows, theirs = (split_rows(table, "forget") for table in (self.table, self.reference))
        check_same_rows(rows, theirs, "forget quality")
        tests = {}
        for definition in DEFINITIONS:
            mine, others = rows_truth_ratio(rows, definition), rows_truth_ratio(theirs, definition)
            if mine is not None and others is not None:
                tests[definition] = kolmogorov_smirnov(mine, others)
        if not tests:
            raise ValueError(
                "forget quality compares truth ratios of different definitions: "
                f"{', '.join(available_definitions(rows))} here, {', '.join(available_definitions(theirs))} in the "
                "reference. Take logs that hold paraphrase and perturbed losses, so that both can be recomputed by "
                "one definition."
            )
        if len(tests) > 1:
            tests.pop("prob_mean", None)
        for definition, test in tests.items():
            for base in ("forget_quality", "forget_quality_statistic", "forget_quality_log10"):
                # Beyond some 540 rows a complete separation underflows, and has no logarithm.
                if base != "forget_quality_log10" or test.pvalue > 0:
                    metric = cast(ForgetQuality, metric_unit(base))
                    self.add(self.name(base, definition), metric.of_test(test), len(rows), definition)


def answer_probability(rows: pd.DataFrame, definition: Definition, missing: Missing = "error") -> Array | None:
    """Probability of the answer of each row, shape `[n]`, or `None` without likelihoods.

    On forget and retain it is P(g) = exp(-mean NLL); on real authors and world facts P(g) / (P(g) + sum_j P(w_j)),
    which `definition="open_unlearning"` computes with 1e-10 in the denominator.

    Raises:
        ValueError: if rows are missing, or all options of a row have likelihood zero.
    """
    if rows.empty or rows["split"].iloc[0] not in _OPTION_SPLITS:
        return _probability(rows, "answer", definition, missing)
    if definition == "open_unlearning" and (logged := column_values(rows, "choice_prob", missing)) is not None:
        return logged
    if column_values(rows, "answer_mean_nll", missing) is None or "perturbed_mean_nll" not in rows:
        return None
    complete = rows[rows["answer_mean_nll"].notna() & rows["perturbed_mean_nll"].notna()]
    if complete.empty:
        return None
    if definition == "open_unlearning":
        right = _probability(complete, "answer", definition, missing)
        assert right is not None
        wrong = np.array([np.sum(row) for row in _wrong_probabilities(complete, definition)])
        return np.asarray(right / (right + wrong + 1e-10))
    metric = metric_unit(f"{rows['split'].iloc[0]}_prob")
    return metric.per_sample(predictions=complete["answer_mean_nll"], references=complete["perturbed_mean_nll"])


def _wrong_probabilities(rows: pd.DataFrame, definition: Definition) -> list[Array]:
    if definition == "open_unlearning" and "perturbed_prob" in rows and rows["perturbed_prob"].notna().all():
        return [np.asarray(row, dtype=np.float64) for row in rows["perturbed_prob"]]
    return [np.exp(-np.asarray(row, dtype=np.float64)) for row in rows["perturbed_mean_nll"]]


def _probability(rows: pd.DataFrame, what: str, definition: Definition, missing: Missing) -> Array | None:
    if definition == "open_unlearning":
        logged = column_values(rows, f"{what}_prob", missing)
        if logged is not None:
            return logged
    losses = column_values(rows, f"{what}_mean_nll", missing)
    return None if losses is None else metric_unit("forget_prob").per_sample(predictions=losses)
