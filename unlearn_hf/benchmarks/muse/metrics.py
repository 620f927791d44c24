"""MUSE's aggregates from a per-sample table (Shi et al. 2024, arXiv 2407.06460).

The table has these splits: `verbmem_forget`, `knowmem_forget` and `knowmem_retain` with `rouge_l_f1` per row, and
`forget` and `holdout` with membership scores (`min_k` for PrivLeak). MUSE scores ROUGE-L F1 without a stemmer,
open-unlearning with one; the column holds whichever was computed, and the definition of the value names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import pandas as pd

from unlearn_hf.benchmarks.muse.benchmark import TEXT_SPLITS
from unlearn_hf.common.checks import check_choice
from unlearn_hf.evaluation.metric_value import MetricValue
from unlearn_hf.evaluation.metrics.aggregates import Aggregates
from unlearn_hf.evaluation.metrics.privacy import table_auc
from unlearn_hf.evaluation.metrics.statistics import (
    RETRAIN_AUC_MUSE,
    RETRAIN_AUC_OPEN_UNLEARNING,
    bootstrap_interval,
    privleak_muse,
    privleak_open_unlearning,
)
from unlearn_hf.evaluation.sample_table import Compatibility, Missing

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
    check_choice("corpus", corpus, (None, *get_args(Corpus)))
    found = Aggregates(samples, reference, "all", compatibility, missing, settings, fingerprint)
    stemmer = "stemmed" if compatibility else "unstemmed"
    for split, fraction in TEXT_SPLITS.items():
        scores = found.column(split, "rouge_l_f1")
        if scores is not None:
            low, high = bootstrap_interval(scores)
            for name, scale in ((fraction, 1), (split, 100)):
                found.add_from(name, scores, f"rouge_l_f1_{stemmer}", interval=(scale * low, scale * high))
    found.add_memorization("verbmem_forget")
    found.add_attacks()
    found.add_privleak()
    area = table_auc(found.table, "min_k", missing)
    if area is not None:
        auc, n = area
        found.add("mia_min_k_auc_muse", 1 - auc, n, "holdout_below_forget")
        as_muse, as_open_unlearning = _as_constants(found.table, settings or {})
        for name in (name for name in RETRAIN_AUC_MUSE if corpus in (None, name)):
            constant = privleak_muse(1 - auc, RETRAIN_AUC_MUSE[name])
            logged = privleak_open_unlearning(auc, RETRAIN_AUC_OPEN_UNLEARNING[name])
            if as_muse:
                found.add(f"privleak_muse_{name}", constant, n, f"muse_constant_{name}")
            if as_open_unlearning:
                found.add(f"privleak_open_unlearning_{name}", logged, n, f"open_unlearning_retrain_log_{name}")
            if as_muse and corpus and reference is None and "privleak" not in found.values:
                found.add("privleak", constant, n, f"muse_constant_{name}")
    return found.checked(f"rouge_l_f1 of {', '.join(TEXT_SPLITS)} and min_k of forget and holdout")


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
