"""The verdict as a person reads it: a table before and after, and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlearn_hf.common.terminal import wrapped
from unlearn_hf.evaluation.verdict.facts import Verdict
from unlearn_hf.evaluation.verdict.words import sentences
from unlearn_hf.report.tables import print_table

_NAMES = {
    "forget_prob": "probability of answers to forget",
    "retain_prob": "probability of answers to keep",
    "holdout_prob": "probability of answers never seen",
    "forget_leaks": "rows that leak by any test",
    "forget_leaks_likelihood": "  by likelihood",
    "forget_leaks_greedy": "  in the greedy answer",
    "forget_leaks_sampled": "  in a sampled answer",
    "forget_leaks_key_words": "  by names, numbers, dates",
}


def before_and_after(before: Mapping[str, float], after: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """What was measured, before, after: a row each, shares of rows in percent."""

    def shown(name: str, value: float) -> str:
        return f"{100 * value:.0f} %" if name.startswith("forget_leaks") else f"{value:.3g}"

    return [
        (text, shown(name, before[name]), shown(name, after[name]))
        for name, text in _NAMES.items()
        if name in before and name in after
    ]


def print_verdict(verdict: Verdict) -> None:
    """Print table and sentences."""
    print()
    print_table([("", "before", "after"), *before_and_after(verdict.before, verdict.after)], numbers=8)
    print()
    for sentence in sentences(verdict):
        print(wrapped(sentence, "    "))


def card_verdict(verdict: Verdict) -> dict[str, Any]:
    """What a model card says: no text of rows that were to be forgotten."""
    return {"rows": before_and_after(verdict.before, verdict.after), "sentences": sentences(verdict, leaks=False)}
