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

from unlearn_hf.evaluation.metrics.aggregates import Aggregates
from unlearn_hf.evaluation.metrics.base import Metric, metric_unit
from unlearn_hf.evaluation.metrics.privacy import paired_auc
from unlearn_hf.evaluation.metrics.statistics import harmonic_mean


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


# Metrics, and attacks, with the published names of what is made of them.
_MEMORIZATION = {
    "extraction_strength": "one_minus_es",
    "exact_memorization": "one_minus_em",
    "forget_paraphrase_prob": "one_minus_paraprob",
    "forget_truth_ratio_prob_mean": "one_minus_truth",
}
_ATTACKS = {"loss": "s_loss", "zlib": "s_zlib", "min_k": "s_mink", "min_k_plus_plus": "s_minkpp"}
_PUBLISHED_MEANS = {
    "mem": tuple(_MEMORIZATION.values()),
    "privacy_mia": tuple(_ATTACKS.values()),
    "privacy": ("privacy_mia", "uds"),
    "utility": ("model_utility", "fluency"),
    "overall": ("mem", "privacy", "utility_rel"),
}
_PARTS = frozenset({*_MEMORIZATION.values(), *_ATTACKS.values(), "uds", "model_utility", "fluency"})
_SHIFT = 1e-12
UTILITY_SETS = ("retain", "real_authors", "world_facts")
UTILITY_PARTS = ("prob", "rouge", "truth_ratio")
"""Of each of the sets: the nine metrics that model utility is the harmonic mean of."""


def add_composites(found: Aggregates) -> None:
    """Add the composites that the values at hand suffice for; `privacy` needs a reference.

    Raises:
        ValueError: if the reference is over other forget or holdout rows.
    """
    values = found.values
    published: dict[str, float] = {}
    facts: dict[str, tuple[int, str]] = {}  # rows and definition

    def add(name: str, parts: Mapping[str, float], n: int, definition: str) -> None:
        found.add(name, metric_unit(name).aggregate(parts), n, definition)

    if all(name in values for name in _MEMORIZATION):
        parts = {f"1 - {name}": max(0.0, 1 - values[name].value) for name in _MEMORIZATION}
        rows = min(values[name].n for name in _MEMORIZATION)
        add("memorization", parts, rows, f"harmonic_extraction_{values['extraction_strength'].definition}")
        published |= dict(zip(_MEMORIZATION.values(), parts.values(), strict=True))
        facts["mem"] = rows, f"published_extraction_{values['extraction_strength'].definition}"
    if found.reference is not None:
        pairs = {attack: paired_auc(found.table, found.reference, attack, found.missing) for attack in _ATTACKS}
        known = {attack: pair for attack, pair in pairs.items() if pair is not None}
        if len(known) == len(_ATTACKS):
            texts = values["mia_min_k_plus_plus_auc"].n
            scores = {attack: privacy_score(*pair) for attack, pair in known.items()}
            add("privacy", scores, texts, "harmonic_auc_distance")
            published |= {_ATTACKS[attack]: published_privacy_score(*pair) for attack, pair in known.items()}
            facts["privacy_mia"] = texts, "published"
    found.add_from("forget_fluency", found.column("forget", "fluency"), "classifier_mean")
    utility: dict[str, float] = {
        name: values[name].value for name in ("model_utility", "forget_fluency") if name in values
    }
    if "model_utility" in utility:
        rows = values["model_utility"].n
        add("utility", utility, rows, "harmonic_" + "_and_".join(utility))
        facts["utility"] = rows, "published"
    published |= {name.removeprefix("forget_"): value for name, value in utility.items()}
    for name, value in published_composites(published).items():
        found.add(f"uds_{name}", value, *facts[name])


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
