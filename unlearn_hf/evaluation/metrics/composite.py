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

A composite exists only when all of its parts do. Compare composites only with composites of the same name.

Beside them stand, as `uds_*`, those that were published with the Unlearning Depth Score (arXiv 2605.24614); see
`published_composites`. They differ in three ways: distances of attacks are relative to AUC_retain, fluency is always
part of utility, and privacy counts the depth score itself, which is not measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from unlearn_hf.evaluation.metric_value import MetricValue, metric_value
from unlearn_hf.evaluation.metrics.base import Metric, metric_unit
from unlearn_hf.evaluation.metrics.privacy import paired_auc
from unlearn_hf.evaluation.metrics.statistics import harmonic_mean
from unlearn_hf.evaluation.sample_table import Missing, column_values, split_rows


class PublishedMean(Metric):
    """n / sum of 1 / (part + 1e-12)."""

    definition = "published"

    def aggregate(self, values: Any) -> float:
        """Harmonic mean, to some 1e-12."""
        parts = np.asarray(list(values.values()) if isinstance(values, Mapping) else values, dtype=np.float64)
        return float(parts.size / (1 / (parts + _SHIFT)).sum())


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
_PUBLISHED_MEMORIZATION = ("one_minus_es", "one_minus_em", "one_minus_paraprob", "one_minus_truth")
_PUBLISHED_ATTACKS = ("s_loss", "s_zlib", "s_mink", "s_minkpp")
_PUBLISHED_MEANS = {
    "mem": _PUBLISHED_MEMORIZATION,
    "privacy_mia": _PUBLISHED_ATTACKS,
    "privacy": ("privacy_mia", "uds"),
    "utility": ("model_utility", "fluency"),
    "overall": ("mem", "privacy", "utility_rel"),
}
_PARTS = frozenset({*_PUBLISHED_MEMORIZATION, *_PUBLISHED_ATTACKS, "uds", "model_utility", "fluency"})
_SHIFT = 1e-12


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
    published: dict[str, float] = {}
    facts: dict[str, tuple[int, str]] = {}  # rows and definition

    def add(name: str, parts: Any, n: int, definition: str) -> None:
        composites[name] = metric_value(name, metric_unit(name).aggregate(parts), n, definition, **record)

    if all(name in values for name in _MEMORIZATION_PARTS):
        parts = {f"1 - {name}": max(0.0, 1 - values[name].value) for name in _MEMORIZATION_PARTS}
        rows = min(values[name].n for name in _MEMORIZATION_PARTS)
        add("memorization", parts, rows, f"harmonic_extraction_{values['extraction_strength'].definition}")
        published |= dict(zip(_PUBLISHED_MEMORIZATION, parts.values(), strict=True))
        facts["mem"] = rows, f"published_extraction_{values['extraction_strength'].definition}"
    if reference is not None:
        pairs = {attack: paired_auc(table, reference, attack, missing) for attack in _PRIVACY_ATTACKS}
        known = {attack: pair for attack, pair in pairs.items() if pair is not None}
        if len(known) == len(_PRIVACY_ATTACKS):
            texts = values[f"mia_{_PRIVACY_ATTACKS[-1]}_auc"].n
            scores = {attack: privacy_score(*pair) for attack, pair in known.items()}
            add("privacy", scores, texts, "harmonic_auc_distance")
            relative = [published_privacy_score(*pair) for pair in known.values()]
            published |= dict(zip(_PUBLISHED_ATTACKS, relative, strict=True))
            facts["privacy_mia"] = texts, "published"
    fluency = column_values(split_rows(table, "forget"), "fluency", missing)
    if fluency is not None:
        add("forget_fluency", fluency, fluency.size, "classifier_mean")
        published["fluency"] = composites["forget_fluency"].value
    if "model_utility" in values:
        parts = {"model_utility": values["model_utility"].value}
        if fluency is not None:
            parts["forget_fluency"] = composites["forget_fluency"].value
        add("utility", parts, values["model_utility"].n, "harmonic_" + "_and_".join(parts))
        published["model_utility"] = values["model_utility"].value
        facts["utility"] = values["model_utility"].n, "published"
    for name, value in published_composites(published).items():
        composites[f"uds_{name}"] = metric_value(f"uds_{name}", value, *facts[name], **record)
    return composites


def published_composites(
    parts: Mapping[str, Any], *, full_utility: float | None = None, uds: float | None = None
) -> dict[str, float]:
    """The composite scores published with the Unlearning Depth Score, from their parts, by their published names.

    HM is n / sum of 1 / (part + 1e-12), so that a part of zero gives about zero:

    * `mem` = HM(`one_minus_es`, `one_minus_em`, `one_minus_paraprob`, `one_minus_truth`): one minus extraction
      strength, exact memorisation, probability of the paraphrase, and truth ratio in its `prob_mean` form, on forget;
    * `privacy_mia` = HM(`s_loss`, `s_zlib`, `s_mink`, `s_minkpp`), each a `published_privacy_score`;
    * `privacy` = HM(`privacy_mia`, `uds`);
    * `utility` = HM(`model_utility`, `fluency`), and `utility_rel` = min(1, `utility` / that of the full model);
    * `overall` = HM(`mem`, `privacy`, `utility_rel`).

    Args:
        parts: values in [0, 1] by these names; whatever else is in it is left alone, so a published row can be given.
        full_utility: `utility` of the full model, fine-tuned for as many epochs; `utility_rel` needs it.
        uds: the Unlearning Depth Score, unless it is among the parts.

    Returns:
        Published name -> value, for every composite whose parts are all there.

    Raises:
        ValueError: for a part outside [0, 1], or a utility of the full model that is not above zero.

    Source:
        Unlearning Depth Score, arXiv 2605.24614.
    """
    known = {
        name: float(value) for name, value in {"uds": uds, **parts}.items() if name in _PARTS and value is not None
    }
    for name, value in known.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, and must lie in [0, 1].")
    if full_utility is not None and not full_utility > 0:
        raise ValueError(f"full_utility is {full_utility}, and must be above 0.")
    found: dict[str, float] = {}
    for name, names in _PUBLISHED_MEANS.items():
        available = known | found
        if all(part in available for part in names):
            found[name] = metric_unit(f"uds_{name}").aggregate([available[part] for part in names])
        if name == "utility" and name in found and full_utility is not None:
            found["utility_rel"] = min(1.0, found[name] / (full_utility + _SHIFT))
    return found


def published_privacy_score(auc: float, reference_auc: float) -> float:
    """clip(1 - |AUC - AUC_ref| / AUC_ref, 0, 1), where forget rows have label 0 and holdout rows 1.

    A reference with an AUC of zero has no such score but for the same AUC, and gives zero.

    Raises:
        ValueError: if an AUC is outside [0, 1].
    """
    _check_areas(auc, reference_auc)
    if auc == reference_auc:
        return 1.0
    return max(0.0, 1 - abs(auc - reference_auc) / reference_auc) if reference_auc else 0.0


def privacy_score(auc: float, reference_auc: float) -> float:
    """1 - |AUC - AUC_ref| / max(AUC_ref, 1 - AUC_ref), in [0, 1].

    Raises:
        ValueError: if an AUC is outside [0, 1].
    """
    _check_areas(auc, reference_auc)
    return max(0.0, 1 - abs(auc - reference_auc) / max(reference_auc, 1 - reference_auc))


def _check_areas(auc: float, reference_auc: float) -> None:
    for name, value in (("auc", auc), ("reference_auc", reference_auc)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, and must lie in [0, 1].")
