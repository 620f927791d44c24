"""Composite scores: memorization, privacy and utility, each a harmonic mean in [0, 1] with 1 the best.

The open-unlearning paper (Dorna et al. 2025, arXiv 2506.12618, appendix F) aggregates its metrics like this, but its
code was never released, and its transformation of attack AUCs is not stated. Our choices:

* `memorization`: harmonic mean of 1 - extraction strength, 1 - exact memorization, 1 - probability of the paraphrased
  answer, 1 - truth ratio in its `prob_mean` definition (the share of the right answer), all on the forget set.
* `privacy`: harmonic mean over the attacks loss, zlib, Min-K and Min-K++ of
  1 - |AUC - AUC_retain| / max(AUC_retain, 1 - AUC_retain): 1 where the attack does what it does on the retain model, 0
  as far from it as an AUC can be. It needs a reference.
* `utility`: harmonic mean of model utility and fluency (the probability that a classifier finds generations on the
  forget set not to be gibberish), or model utility alone where there is no fluency; the definition says which.

A composite exists only when all of its parts do. Compare composites only with composites from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from unlearn_hf.evaluation.metric_value import MetricValue, metric_value
from unlearn_hf.evaluation.metrics.base import Metric, metric_unit
from unlearn_hf.evaluation.metrics.privacy import paired_auc
from unlearn_hf.evaluation.metrics.statistics import harmonic_mean
from unlearn_hf.evaluation.sample_table import Missing, column_values, split_rows


class HarmonicMean(Metric):
    """Harmonic mean of its parts; one zero makes it zero."""

    definition = "harmonic"

    def aggregate(self, values: Any) -> float:
        """See `harmonic_mean`."""
        return harmonic_mean(values)


_MEMORIZATION_PARTS = (
    "extraction_strength",
    "exact_memorization",
    "forget_paraphrase_prob",
    "forget_truth_ratio_prob_mean",
)
_PRIVACY_ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")


def composite_scores(
    values: Mapping[str, MetricValue],
    table: pd.DataFrame,
    reference: pd.DataFrame | None,
    *,
    missing: Missing = "error",
    **record: Any,
) -> dict[str, MetricValue]:
    """The composites that the values at hand suffice for.

    Args:
        values: aggregates by name.
        table: the per-sample table they come from.
        reference: the retain model's table, for `privacy`.
        missing: see `prepare_table`.
        **record: further fields of `MetricValue`.

    Raises:
        ValueError: if the reference is over other forget or holdout rows.
    """
    composites: dict[str, MetricValue] = {}

    def add(name: str, parts: Any, n: int, definition: str) -> None:
        composites[name] = metric_value(name, metric_unit(name).aggregate(parts), n, definition, **record)

    if all(name in values for name in _MEMORIZATION_PARTS):
        parts = {f"1 - {name}": max(0.0, 1 - values[name].value) for name in _MEMORIZATION_PARTS}
        rows = min(values[name].n for name in _MEMORIZATION_PARTS)
        add("memorization", parts, rows, f"harmonic_extraction_{values['extraction_strength'].definition}")
    if reference is not None:
        pairs = {attack: paired_auc(table, reference, attack, missing) for attack in _PRIVACY_ATTACKS}
        scores = {attack: privacy_score(*pair) for attack, pair in pairs.items() if pair is not None}
        if len(scores) == len(_PRIVACY_ATTACKS):
            add("privacy", scores, values[f"mia_{_PRIVACY_ATTACKS[-1]}_auc"].n, "harmonic_auc_distance")
    if "model_utility" in values:
        parts = {"model_utility": values["model_utility"].value}
        fluency = column_values(split_rows(table, "forget"), "fluency", missing)
        if fluency is not None:
            add("forget_fluency", fluency, fluency.size, "classifier_mean")
            parts["forget_fluency"] = composites["forget_fluency"].value
        add("utility", parts, values["model_utility"].n, "harmonic_" + "_and_".join(parts))
    return composites


def privacy_score(auc: float, reference_auc: float) -> float:
    """1 - |AUC - AUC_ref| / max(AUC_ref, 1 - AUC_ref), in [0, 1].

    Raises:
        ValueError: if an AUC is outside [0, 1].
    """
    for name, value in (("auc", auc), ("reference_auc", reference_auc)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, and must lie in [0, 1].")
    return max(0.0, 1 - abs(auc - reference_auc) / max(reference_auc, 1 - reference_auc))
