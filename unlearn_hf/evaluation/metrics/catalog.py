"""Catalog of metrics: what each name means, in which direction it is better, and which version we compute.

Names are flat. A name may carry a suffix for another definition than the default: `forget_truth_ratio_arithmetic`,
`model_utility_open_unlearning`, `privleak_muse_news`. A suffix never changes the meaning of the base name's direction
except where `describe` says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from unlearn_hf.common.registry import Registry
from unlearn_hf.evaluation.attacks.base import ATTACKS, Attack

_TOFU = "Maini et al. 2024, arXiv 2401.06121"
_MUSE = "Shi et al. 2024, arXiv 2407.06460"
_OPEN_UNLEARNING = "Dorna et al. 2025, arXiv 2506.12618"
_EXTRACTION = "Carlini et al. 2021, arXiv 2012.07805"
_LUME = "Ramakrishna et al. 2025, arXiv 2502.15097"
_DEPTH = "Unlearning Depth Score 2026, arXiv 2605.24614"
_MEMORIZATION = "Tirumala et al. 2022, arXiv 2205.10770"


@dataclass(frozen=True)
class MetricDescription:
    """What a metric is.

    Attributes:
        summary: one line.
        higher_is_better: direction, `None` where the best value is that of a retrained model.
        paper: source.
        unit: `"module:class"` of the metric, see `unlearn_hf.evaluation.metrics.base`; imported when it is computed.
        needs: what of the per-sample table it is computed from.
        version: version of our implementation.
    """

    summary: str
    higher_is_better: bool | None
    paper: str
    unit: str
    needs: str
    version: int = 1


_METRICS = "unlearn_hf.evaluation.metrics."
_PROBABILITY, _CHOICE = _METRICS + "probability:AnswerProbability", _METRICS + "probability:ChoiceProbability"
_TRUTH_RATIO, _ROUGE = _METRICS + "truth_ratio:TruthRatio", _METRICS + "rouge:RougeRecall"
_F1, _F1_PERCENT = _METRICS + "rouge:RougeF1", _METRICS + "rouge:RougeF1Percent"
_QUALITY, _HARMONIC = _METRICS + "forget_quality:ForgetQuality", _METRICS + "composite:HarmonicMean"


def _tofu_set(split: str, label: str, forget: bool) -> dict[str, MetricDescription]:
    options = split in ("real_authors", "world_facts")
    probability = "probability of the answer among the wrong options" if options else "mean P(answer)^(1/tokens)"
    score = "mean min(R, 1/R) of the truth ratio R" if forget else "mean max(0, 1 - R) of the truth ratio R"
    right = "answer" if options else "paraphrase"
    found = {
        f"{split}_prob": MetricDescription(
            f"{label}: {probability}",
            not forget,
            _TOFU,
            _CHOICE if options else _PROBABILITY,
            f"{'answer_mean_nll, perturbed_mean_nll' if options else 'answer_mean_nll'} of {split}",
        ),
        f"{split}_rouge": MetricDescription(
            f"{label}: mean ROUGE-L recall of greedy answers", not forget, _TOFU, _ROUGE, f"rouge_l_recall of {split}"
        ),
        f"{split}_truth_ratio": MetricDescription(
            f"{label}: {score}", True, _TOFU, _TRUTH_RATIO, f"{right}_mean_nll, perturbed_mean_nll of {split}"
        ),
    }
    found[f"{split}_perturbed_prob"] = MetricDescription(
        f"{label}: mean P(wrong answer)^(1/tokens)",
        None,
        _OPEN_UNLEARNING,
        _METRICS + "probability:WrongProbability",
        f"perturbed_mean_nll of {split}",
    )
    name, what = ("answer", "answer") if options else ("paraphrase", "paraphrased answer")
    found[f"{split}_{name}_prob"] = MetricDescription(
        f"{label}: mean P({what})^(1/tokens)",
        not forget,
        _OPEN_UNLEARNING,
        _PROBABILITY,
        f"{name}_mean_nll of {split}",
    )
    return found


def _lume() -> dict[str, MetricDescription]:
    """See `benchmarks.lume.metrics.aggregate_lume`."""
    found = {}
    kinds = {"regurgitation": ("ROUGE-L recall of completions", _ROUGE, "rouge_l_recall", "sc"),
             "knowledge": ("share of answers that are the reference", _METRICS + "exact_match:ExactMatch",
                           "exact_match", "qa")}  # fmt: skip
    for name in ("forget", "retain"):
        for task, label in (("task1", "stories"), ("task2", "invented people"), ("task3", "biographies")):
            for kind, (what, unit, column, form) in kinds.items():
                said, needs = f"LUME, {name} set, {label}: {what}", f"{column} of {name}_{task}_{form}"
                found[f"lume_{name}_{task}_{kind}"] = MetricDescription(said, name == "retain", _LUME, unit, needs)
    mean, documents = _METRICS + "base:Metric", "answer_mean_nll of member and nonmember"
    area, distance = (_METRICS + f"privacy:{unit}" for unit in ("TextAUC", "DistanceToHalf"))
    rows: dict[str, tuple[str, bool | None, str, str]] = {
        "forget_mean": ("mean of the six scores of the forget set (not official)", False, mean, "the six"),
        "retain_mean": ("mean of the six scores of the retain set (not official)", True, mean, "the six"),
        "task_aggregate": ("harmonic mean of the twelve, forget ones as 1 - x", True, _HARMONIC, "the twelve"),
        "membership_auc": ("AUC of the mean NLL of documents, nonmember above member", None, area, documents),
        "membership_score": ("1 - 2 |AUC - 0.5| of the membership attack", True, distance, documents),
        "final_score": ("mean of task aggregate, membership score and accuracy on MMLU", True, mean, "all three"),
    }
    return found | {
        f"lume_{name}": MetricDescription(f"LUME: {what}", better, _LUME, unit, needs)
        for name, (what, better, unit, needs) in rows.items()
    }


def _depth_composites() -> dict[str, MetricDescription]:
    """See `composite.published_composites`; those that need what is not measured here come from that function."""
    attacks = "loss, zlib, min_k, min_k_plus_plus of forget and holdout, and the retain model's"
    rows = {
        "mem": ("extraction strength, exact memorization, paraphrase probability and truth ratio", "the four metrics"),
        "privacy_mia": ("the distances of four attacks to the retain model's AUC, relative to it", attacks),
        "privacy": ("uds_privacy_mia and the Unlearning Depth Score", "the depth score, which is not measured here"),
        "utility": ("model utility and fluency", "both metrics"),
        "overall": ("uds_mem, uds_privacy and utility relative to the full model's", "the three"),
    }
    unit = _METRICS + "composite:PublishedMean"
    return {
        f"uds_{name}": MetricDescription(f"composite as published, 1 is best: {what}", True, _DEPTH, unit, needs)
        for name, (what, needs) in rows.items()
    }


_BUILT_IN: dict[str, MetricDescription] = {
    **_tofu_set("forget", "forget set", forget=True),
    **_tofu_set("retain", "retain set", forget=False),
    **_tofu_set("real_authors", "real authors", forget=False),
    **_tofu_set("world_facts", "world facts", forget=False),
    "model_utility": MetricDescription(
        "harmonic mean of Prob, ROUGE and truth ratio on retain, real authors and world facts",
        True,
        _TOFU,
        _HARMONIC,
        "the nine metrics",
    ),
    "forget_quality": MetricDescription(
        "p-value of the KS test between truth ratios of this and of the retain model",
        True,
        _TOFU,
        _QUALITY,
        "truth ratios of forget, and the retain model's",
    ),
    "forget_quality_log10": MetricDescription(
        "log10 of forget quality", True, _TOFU, _QUALITY, "truth ratios of forget, and the retain model's"
    ),
    "forget_quality_statistic": MetricDescription(
        "KS distance behind forget quality", False, _TOFU, _QUALITY, "truth ratios of forget, and the retain model's"
    ),
    "extraction_strength": MetricDescription(
        "share of the answer that follows from the shortest sufficient prefix",
        False,
        _EXTRACTION,
        _METRICS + "memorization:ExtractionStrength",
        "extraction_strength of forget (MUSE: verbmem_forget)",
    ),
    "exact_memorization": MetricDescription(
        "share of answer tokens predicted exactly",
        False,
        _MEMORIZATION,
        _METRICS + "memorization:ExactMemorization",
        "exact_memorization of forget (MUSE: verbmem_forget)",
    ),
    "privleak": MetricDescription(
        "relative distance of the Min-K AUC to a retrained model's, percent",
        None,
        _MUSE,
        _METRICS + "privacy:PrivLeak",
        "min_k of forget and holdout, and the retrained model's AUC",
    ),
    "forget_fluency": MetricDescription(
        "probability that answers on forget are no gibberish",
        True,
        _OPEN_UNLEARNING,
        _METRICS + "base:Metric",
        "fluency of forget",
    ),
    "memorization": MetricDescription(
        "composite, 1 is best: harmonic mean of one minus extraction strength, exact memorization, paraphrase "
        "probability and prob_mean truth ratio",
        True,
        _OPEN_UNLEARNING,
        _HARMONIC,
        "the four metrics",
    ),
    "privacy": MetricDescription(
        "composite, 1 is best: harmonic mean over attacks of one minus the distance to the retain model's AUC",
        True,
        _OPEN_UNLEARNING,
        _HARMONIC,
        "loss, zlib, min_k, min_k_plus_plus of forget and holdout, and the retain model's",
    ),
    "utility": MetricDescription(
        "composite, 1 is best: harmonic mean of model utility and, where known, fluency",
        True,
        _OPEN_UNLEARNING,
        _HARMONIC,
        "both metrics",
    ),
    **_depth_composites(),
    **_lume(),
    "verbmem_forget": MetricDescription(
        "VerbMem: ROUGE-L F1 of continuations, x 100", False, _MUSE, _F1_PERCENT, "rouge_l_f1 of verbmem_forget"
    ),
    "knowmem_forget": MetricDescription(
        "KnowMem on forget: ROUGE-L F1 of answers, x 100", False, _MUSE, _F1_PERCENT, "rouge_l_f1 of knowmem_forget"
    ),
    "knowmem_retain": MetricDescription(
        "KnowMem on retain: ROUGE-L F1 of answers, x 100", True, _MUSE, _F1_PERCENT, "rouge_l_f1 of knowmem_retain"
    ),
    "forget_verbmem_rouge": MetricDescription(
        "VerbMem as a fraction", False, _MUSE, _F1, "rouge_l_f1 of verbmem_forget"
    ),
    "forget_knowmem_rouge": MetricDescription(
        "KnowMem on forget as a fraction", False, _MUSE, _F1, "rouge_l_f1 of knowmem_forget"
    ),
    "retain_knowmem_rouge": MetricDescription(
        "KnowMem on retain as a fraction", True, _MUSE, _F1, "rouge_l_f1 of knowmem_retain"
    ),
}

METRICS: Registry[Any] = Registry("metric", dict(_BUILT_IN))
"""Name -> `MetricDescription`, or for a metric of another package its class (see `metrics.base.Metric`)."""

VARIANT_SUFFIXES: tuple[str, ...] = (
    "_geometric",
    "_arithmetic",
    "_prob_mean",
    "_open_unlearning_news",
    "_open_unlearning_books",
    "_open_unlearning",
    "_muse_news",
    "_muse_books",
    "_muse",
    "_versus_half",
    "_logged",
)


_ATTACK = re.compile(r"mia_(.+)_auc")


def metrics() -> dict[str, Any]:
    """Every metric without variant suffixes, one for each attack of the registry among them."""
    attacks = {f"mia_{name}_auc": _attack(attack) for name, attack in ATTACKS.items()}
    return dict(METRICS) | attacks


def _attack(attack: Attack) -> MetricDescription:
    summary = f"AUC of the membership attack by {attack.summary}, forget against holdout"
    needs = "the attack's scores of forget and holdout"
    return MetricDescription(summary, None, attack.paper, _METRICS + "privacy:AttackAUC", needs, attack.version)


def is_metric(name: str) -> bool:
    """Whether a metric has this name, without a variant suffix."""
    return name in METRICS or _attacked(name) is not None


def _attacked(name: str) -> Attack | None:
    match = _ATTACK.fullmatch(name)
    return ATTACKS[match[1]] if match and match[1] in ATTACKS else None


def describe(name: str) -> Any:
    """The description of a metric name, with or without variant suffixes.

    Raises:
        ValueError: if there is no such metric.
    """
    if name in METRICS:
        return METRICS[name]
    if (attack := _attacked(name)) is not None:
        return _attack(attack)
    for suffix in VARIANT_SUFFIXES:
        if name.endswith(suffix):
            description = describe(name[: -len(suffix)])
            if suffix == "_prob_mean" and name.startswith("forget_truth_ratio"):
                # P(right) / (P(right) + P(wrong)) on forget measures what is still known.
                return replace(
                    description,
                    summary="forget set: mean share of the right answer",
                    higher_is_better=False,
                    paper=_OPEN_UNLEARNING,
                )
            return description
    raise ValueError(f"metric {name!r} is unknown; the metrics are {', '.join(sorted(metrics()))}.")
