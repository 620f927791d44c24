"""MUSE's aggregates from a per-sample table (Shi et al. 2024, arXiv 2407.06460).

The table has these splits: `verbmem_forget`, `knowmem_forget` and `knowmem_retain` with `rouge_l_f1` per row, and
`forget` and `holdout` with membership scores (`min_k` for PrivLeak). MUSE scores ROUGE-L F1 without a stemmer,
open-unlearning with one; the column holds whichever was computed, and the definition of the value names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

from unlearn_hf.benchmarks.muse.benchmark import TEXT_SPLITS
from unlearn_hf.evaluation.metric_value import MetricValue, metric_value
from unlearn_hf.evaluation.metrics.base import metric_unit
from unlearn_hf.evaluation.metrics.privacy import aggregate_attacks, aggregate_privleak, table_auc
from unlearn_hf.evaluation.metrics.statistics import (
    RETRAIN_AUC_MUSE,
    RETRAIN_AUC_OPEN_UNLEARNING,
    bootstrap_interval,
    privleak_muse,
    privleak_open_unlearning,
    strength_open_unlearning,
)
from unlearn_hf.evaluation.retain_results import check_contribution, has_min_k
from unlearn_hf.evaluation.sample_table import (
    Compatibility,
    Missing,
    check_compatibility,
    column_values,
    prepare_table,
    split_rows,
)

Corpus = Literal["news", "books", "other"]

LENGTH_OPEN_UNLEARNING = 2048
"""Tokens beside BOS that open-unlearning cuts a text to before its Min-K score; MUSE's own evaluation cuts none."""


def aggregate_muse(
    samples: pd.DataFrame,
    reference: pd.DataFrame | None = None,
    corpus: Corpus | None = None,
    compatibility: Compatibility = None,
    *,
    missing: Missing = "error",
    settings: Mapping[str, Any] | None = None,
    fingerprint: str | None = None,
) -> dict[str, MetricValue]:
    """VerbMem, KnowMem, PrivLeak and membership attacks, each with a 95 % bootstrap interval where it is a mean.

    Args:
        samples: per-sample table, see the module.
        reference: the retrained model's table; PrivLeak is then relative to its AUC.
        corpus: `"news"` or `"books"`; without a reference, `privleak` is relative to the constant that MUSE's official
            evaluation has for it. `"other"`: no constant serves. Unknown (`None`): both do, as `privleak_muse_news`
            and so on. Where texts were cut otherwise than those that a constant comes from, every value relative to it
            is left out: whole ones for MUSE's, 2048 tokens beside BOS for open-unlearning's.
        compatibility: `"open_unlearning"` takes that framework's formula for `privleak`, and an AUC of 0.5 without a
            reference.
        missing: see `prepare_table`.
        settings: recorded with each value; `"max_text_tokens"` in it decides about constants, which are taken to be
            comparable where neither it nor `"max_length"` is there.
        fingerprint: hash of the data, recorded with each value.

    Returns:
        Name -> `MetricValue`: `verbmem_forget`, `knowmem_forget`, `knowmem_retain` (x 100) and the same as fractions
        (`forget_verbmem_rouge` ...), `mia_*_auc` and `mia_min_k_auc_muse` (MUSE's orientation), `privleak` and its
        variants, extraction strength and exact memorisation of the VerbMem rows.

    Raises:
        ValueError: for malformed tables, unknown arguments, a table with none of this, or a reference over
            other rows or without what PrivLeak needs.
    """
    if corpus not in (None, "other", *RETRAIN_AUC_MUSE):
        raise ValueError(f'corpus is {corpus!r}; choose "news", "books" or "other".')
    check_compatibility(compatibility)
    table = prepare_table(samples, "all", missing)
    reference = None if reference is None else prepare_table(reference, "all", missing)
    if reference is not None:
        check_contribution(
            reference,
            truth_ratios=False,
            min_k=has_min_k(table, missing),
            compatibility=compatibility,
            missing=missing,
        )
    record: dict[str, Any] = {"settings": dict(settings or {}), "fingerprint": fingerprint}
    values: dict[str, MetricValue] = {}

    def add(name: str, value: float, n: int, definition: str, **optional: Any) -> None:
        values[name] = metric_value(name, value, n, definition, **{**record, **optional})

    stemmer = "stemmed" if compatibility else "unstemmed"
    for split, fraction in TEXT_SPLITS.items():
        scores = column_values(split_rows(table, split), "rouge_l_f1", missing)
        if scores is None:
            continue
        low, high = bootstrap_interval(scores)
        for name, scale in ((fraction, 1), (split, 100)):
            value, interval = metric_unit(name).aggregate(scores), (scale * low, scale * high)
            add(name, value, scores.size, f"rouge_l_f1_{stemmer}", interval=interval)
    verbmem = split_rows(table, "verbmem_forget")
    strength = column_values(verbmem, "extraction_strength", missing)
    if strength is not None:
        definition = "zero_without_match"
        if compatibility:
            definition = "open_unlearning"
            strength = strength_open_unlearning(strength, column_values(verbmem, "answer_tokens", missing))
        add("extraction_strength", metric_unit("extraction_strength").aggregate(strength), strength.size, definition)
    memorized = column_values(verbmem, "exact_memorization", missing)
    if memorized is not None:
        value = metric_unit("exact_memorization").aggregate(memorized)
        add("exact_memorization", value, memorized.size, "teacher_forced")
    values.update(aggregate_attacks(table, compatibility, missing=missing, **record))
    area = table_auc(table, "min_k", missing)
    if area is not None:
        auc, n = area
        add("mia_min_k_auc_muse", 1 - auc, n, "holdout_below_forget")
        values.update(aggregate_privleak(table, reference, compatibility, missing=missing, **record))
        as_muse, as_open_unlearning = _as_constants(table, record["settings"])
        for name in (name for name in RETRAIN_AUC_MUSE if corpus in (None, name)):
            constant = privleak_muse(1 - auc, RETRAIN_AUC_MUSE[name])
            logged = privleak_open_unlearning(auc, RETRAIN_AUC_OPEN_UNLEARNING[name])
            if as_muse:
                add(f"privleak_muse_{name}", constant, n, f"muse_constant_{name}")
            if as_open_unlearning:
                add(f"privleak_open_unlearning_{name}", logged, n, f"open_unlearning_retrain_log_{name}")
            if as_muse and corpus and reference is None and "privleak" not in values:
                add("privleak", constant, n, f"muse_constant_{name}")
    if not values:
        raise ValueError(
            f"no MUSE metric can be computed from the columns {list(samples.columns)} of splits "
            f"{sorted(samples['split'].unique())}; it looks for rouge_l_f1 in {sorted(TEXT_SPLITS)} and min_k in "
            "forget and holdout."
        )
    return values


def _as_constants(table: pd.DataFrame, settings: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether texts are as long as those behind MUSE's constants (whole) and open-unlearning's (2048 and BOS).

    Settings that say nothing of lengths are those of a log of that framework, whose texts with Llama-2's tokenizer
    have 2048 tokens, one more or less.
    """
    if not {"max_text_tokens", "max_length"} & settings.keys():
        return True, True
    # Results of 0.1 cut texts to `max_length` tokens, BOS among them.
    limit = settings["max_text_tokens"] if "max_text_tokens" in settings else settings["max_length"] - 1
    texts = table[table["split"].isin(["forget", "holdout"])]
    longest = texts["answer_tokens"].max() + 1 if "answer_tokens" in texts else float("inf")  # all but the first
    whole = limit is None or bool(longest < limit)
    return whole, limit == LENGTH_OPEN_UNLEARNING or (whole and bool(longest <= LENGTH_OPEN_UNLEARNING))
