"""Catalog of metrics: what each name means, in which direction it is better, and which version we compute.

Names are flat. A name may carry a suffix for another definition than the default: `forget_truth_ratio_arithmetic`,
`model_utility_open_unlearning`, `privleak_muse_news`. A suffix never changes the meaning of the base name's direction
except where `describe` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
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


Descriptions = dict[str, MetricDescription]
Rows = dict[str, tuple[str, bool | None, str]]
"""Name -> summary, direction, needs."""


def _unit(name: str) -> str:
    return f"unlearn_hf.evaluation.metrics.{name}"


_MEAN, _HARMONIC = _unit("base:Metric"), _unit("composite:HarmonicMean")
_PROBABILITY, _ROUGE = _unit("probability:AnswerProbability"), _unit("rouge:RougeRecall")


def _described(rows: Rows, paper: str, unit: str) -> Descriptions:
    return {name: MetricDescription(what, better, paper, unit, needs) for name, (what, better, needs) in rows.items()}


def _tofu_set(split: str, label: str, forget: bool = False, options: bool = False) -> Descriptions:
    """A set of TOFU; with `options` the answers are chosen among wrong ones, and have no paraphrase."""
    unit, probability, columns = _PROBABILITY, "mean P(answer)^(1/tokens)", "answer_mean_nll"
    right, answer = "paraphrase", "paraphrased answer"
    if options:
        unit, probability = _unit("probability:ChoiceProbability"), "probability of the answer among the wrong options"
        columns, right, answer = "answer_mean_nll, perturbed_mean_nll", "answer", "answer"
    score = "mean min(R, 1/R) of the truth ratio R" if forget else "mean max(0, 1 - R) of the truth ratio R"
    better, wrong, ratio = not forget, _unit("probability:WrongProbability"), _unit("truth_ratio:TruthRatio")
    facts: dict[str, tuple[str, bool | None, str, str, str]] = {
        "prob": (probability, better, _TOFU, unit, columns),
        "rouge": ("mean ROUGE-L recall of greedy answers", better, _TOFU, _ROUGE, "rouge_l_recall"),
        "truth_ratio": (score, True, _TOFU, ratio, f"{right}_mean_nll, perturbed_mean_nll"),
        "perturbed_prob": ("mean P(wrong answer)^(1/tokens)", None, _OPEN_UNLEARNING, wrong, "perturbed_mean_nll"),
        f"{right}_prob": (f"mean P({answer})^(1/tokens)", better, _OPEN_UNLEARNING, _PROBABILITY, f"{right}_mean_nll"),
    }
    return {
        f"{split}_{name}": MetricDescription(f"{label}: {what}", direction, paper, made_by, f"{needs} of {split}")
        for name, (what, direction, paper, made_by, needs) in facts.items()
    }


def _lume() -> Descriptions:
    """See `benchmarks.lume.metrics.aggregate_lume`."""
    found = {}
    kinds = {
        "regurgitation": ("ROUGE-L recall of completions", _ROUGE, "rouge_l_recall", "sc"),
        "knowledge": ("share of answers that are the reference", _unit("exact_match:ExactMatch"), "exact_match", "qa"),
    }
    for name in ("forget", "retain"):
        for task, label in (("task1", "stories"), ("task2", "invented people"), ("task3", "biographies")):
            for kind, (what, unit, column, form) in kinds.items():
                said, needs = f"LUME, {name} set, {label}: {what}", f"{column} of {name}_{task}_{form}"
                found[f"lume_{name}_{task}_{kind}"] = MetricDescription(said, name == "retain", _LUME, unit, needs)
    documents = "answer_mean_nll of member and nonmember"
    area, distance = (_unit(f"privacy:{unit}") for unit in ("TextAUC", "DistanceToHalf"))
    rows: dict[str, tuple[str, bool | None, str, str]] = {
        "forget_mean": ("mean of the six scores of the forget set (not official)", False, _MEAN, "the six"),
        "retain_mean": ("mean of the six scores of the retain set (not official)", True, _MEAN, "the six"),
        "task_aggregate": ("harmonic mean of the twelve, forget ones as 1 - x", True, _HARMONIC, "the twelve"),
        "membership_auc": ("AUC of the mean NLL of documents, nonmember above member", None, area, documents),
        "membership_score": ("1 - 2 |AUC - 0.5| of the membership attack", True, distance, documents),
        "final_score": ("mean of task aggregate, membership score and accuracy on MMLU", True, _MEAN, "all three"),
    }
    return found | {
        f"lume_{name}": MetricDescription(f"LUME: {what}", better, _LUME, unit, needs)
        for name, (what, better, unit, needs) in rows.items()
    }


_ATTACK_SCORES = "loss, zlib, min_k, min_k_plus_plus of forget and holdout, and the retain model's"
_RATIOS = "truth ratios of forget, and the retain model's"
_PARTS = "extraction strength, exact memorization, paraphrase probability and"


def _composites(prefix: str, kind: str, paper: str, unit: str, rows: Mapping[str, tuple[str, str]]) -> Descriptions:
    return {
        f"{prefix}{name}": MetricDescription(f"{kind}, 1 is best: {what}", True, paper, unit, needs)
        for name, (what, needs) in rows.items()
    }


_COMPOSITES = {
    "memorization": (f"harmonic mean of one minus {_PARTS} prob_mean truth ratio", "the four metrics"),
    "privacy": ("harmonic mean over attacks of one minus the distance to the retain model's AUC", _ATTACK_SCORES),
    "utility": ("harmonic mean of model utility and, where known, fluency", "both metrics"),
}
# See `composite.published_composites`; those that need what is not measured here come from that function.
_DEPTH_COMPOSITES = {
    "mem": (f"{_PARTS} truth ratio", "the four metrics"),
    "privacy_mia": ("the distances of four attacks to the retain model's AUC, relative to it", _ATTACK_SCORES),
    "privacy": ("uds_privacy_mia and the Unlearning Depth Score", "the depth score, which is not measured here"),
    "utility": ("model utility and fluency", "both metrics"),
    "overall": ("uds_mem, uds_privacy and utility relative to the full model's", "the three"),
}
_FORGET_QUALITY: Rows = {
    "forget_quality": ("p-value of the KS test between truth ratios of this and of the retain model", True, _RATIOS),
    "forget_quality_log10": ("log10 of forget quality", True, _RATIOS),
    "forget_quality_statistic": ("KS distance behind forget quality", False, _RATIOS),
}
_MUSE_PERCENT: Rows = {
    "verbmem_forget": ("VerbMem: ROUGE-L F1 of continuations, x 100", False, "rouge_l_f1 of verbmem_forget"),
    "knowmem_forget": ("KnowMem on forget: ROUGE-L F1 of answers, x 100", False, "rouge_l_f1 of knowmem_forget"),
    "knowmem_retain": ("KnowMem on retain: ROUGE-L F1 of answers, x 100", True, "rouge_l_f1 of knowmem_retain"),
}
_MUSE_FRACTIONS: Rows = {
    "forget_verbmem_rouge": ("VerbMem as a fraction", False, "rouge_l_f1 of verbmem_forget"),
    "forget_knowmem_rouge": ("KnowMem on forget as a fraction", False, "rouge_l_f1 of knowmem_forget"),
    "retain_knowmem_rouge": ("KnowMem on retain as a fraction", True, "rouge_l_f1 of knowmem_retain"),
}
_BUILT_IN: Descriptions = {
    **_tofu_set("forget", "forget set", forget=True),
    **_tofu_set("retain", "retain set"),
    **_tofu_set("real_authors", "real authors", options=True),
    **_tofu_set("world_facts", "world facts", options=True),
    "model_utility": MetricDescription(
        "harmonic mean of Prob, ROUGE and truth ratio on retain, real authors and world facts",
        True,
        _TOFU,
        _HARMONIC,
        "the nine metrics",
    ),
    **_described(_FORGET_QUALITY, _TOFU, _unit("forget_quality:ForgetQuality")),
    "extraction_strength": MetricDescription(
        "share of the answer that follows from the shortest sufficient prefix",
        False,
        _EXTRACTION,
        _unit("memorization:ExtractionStrength"),
        "extraction_strength of forget (MUSE: verbmem_forget)",
    ),
    "exact_memorization": MetricDescription(
        "share of answer tokens predicted exactly",
        False,
        _MEMORIZATION,
        _unit("memorization:ExactMemorization"),
        "exact_memorization of forget (MUSE: verbmem_forget)",
    ),
    "privleak": MetricDescription(
        "relative distance of the Min-K AUC to a retrained model's, percent",
        None,
        _MUSE,
        _unit("privacy:PrivLeak"),
        "min_k of forget and holdout, and the retrained model's AUC",
    ),
    "forget_fluency": MetricDescription(
        "probability that answers on forget are no gibberish", True, _OPEN_UNLEARNING, _MEAN, "fluency of forget"
    ),
    **_composites("", "composite", _OPEN_UNLEARNING, _HARMONIC, _COMPOSITES),
    **_composites("uds_", "composite as published", _DEPTH, _unit("composite:PublishedMean"), _DEPTH_COMPOSITES),
    **_lume(),
    **_described(_MUSE_PERCENT, _MUSE, _unit("rouge:RougeF1Percent")),
    **_described(_MUSE_FRACTIONS, _MUSE, _unit("rouge:RougeF1")),
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


def metrics() -> dict[str, Any]:
    """Every metric without variant suffixes, one for each attack of the registry among them."""
    return dict(METRICS) | {f"mia_{name}_auc": _attack(attack) for name, attack in ATTACKS.items()}


def _attack(attack: Attack) -> MetricDescription:
    summary = f"AUC of the membership attack by {attack.summary}, forget against holdout"
    needs = "the attack's scores of forget and holdout"
    return MetricDescription(summary, None, attack.paper, _unit("privacy:AttackAUC"), needs, attack.version)


def is_metric(name: str) -> bool:
    """Whether a metric has this name, without a variant suffix."""
    return name in metrics()


def describe(name: str) -> Any:
    """The description of a metric name, with or without variant suffixes.

    Raises:
        ValueError: if there is no such metric.
    """
    known = metrics()
    if name in known:
        return known[name]
    suffix = next((suffix for suffix in VARIANT_SUFFIXES if name.endswith(suffix)), None)
    if suffix is None:
        raise ValueError(f"metric {name!r} is unknown; the metrics are {', '.join(sorted(known))}.")
    description = describe(name.removesuffix(suffix))
    if suffix == "_prob_mean" and name.startswith("forget_truth_ratio"):
        # P(right) / (P(right) + P(wrong)) on forget measures what is still known.
        summary = "forget set: mean share of the right answer"
        return replace(description, summary=summary, higher_is_better=False, paper=_OPEN_UNLEARNING)
    return description
