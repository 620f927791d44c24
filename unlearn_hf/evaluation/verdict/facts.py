"""From two measurements to a verdict: which rows still leak, by which test, and what was kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from unlearn_hf.evaluation.metrics.statistics import bootstrap_interval
from unlearn_hf.evaluation.verdict.guesses import by_chance
from unlearn_hf.evaluation.verdict.measuring import Judge, Measurement
from unlearn_hf.evaluation.verdict.rows import JudgedRow

TESTS = ("likelihood", "greedy", "sampled", "key_words")
YES, PARTLY, NO, NOT_MEASURED = "yes", "partly", "no", "not_measured"

LIKELY = 0.25
"""Probability per token above which an answer counts as known where there is nothing to compare it with. Models that
never saw an answer gave .08 to .16 here (README: retain_only)."""
_PARAPHRASE_FACTOR, _UNLIKELY = 1.5, 0.05
_FEW_KNOWN = 0.2
_KEPT, _PARTLY_KEPT = 0.95, 0.8
_MOVED = 0.05
_FEWEST_HOLDOUT = 5


@dataclass
class Verdict:
    """What an unlearning run did, as facts; JSON-ready by `asdict`.

    Attributes:
        forgotten: `yes` (no checked row leaks), `partly` (at most half of them do), `no`, or `not_measured`.
        kept: `yes` (the answers to keep have at least 95 % of their probability), `partly` (80 %), `no`, or
            `not_measured`.
        changed: false when neither answers nor probabilities moved.
        known_before: false when the model did not know the rows in the first place.
        before: metrics by name.
        after: likewise.
        leaking_rows: `row`, `question`, `answer`, the tests that say so (`by`), what the model `says`, and the
            `key_words` in it.
        guessed_rows: likewise, rows that are right no more often than those of a model that never saw them would be.
        kept_share: probability of the answers to keep relative to before, and its 95 % bootstrap interval.
        rows: how many rows were checked, of how many; whether those to keep were held back from training.
        advice: what to try next, a list of sentences.
        cost: seconds by phase, and peak memory in MiB.
        not_checked: what the verdict does not say, a list of sentences.
    """

    forgotten: str
    kept: str
    changed: bool
    known_before: bool
    before: dict[str, float]
    after: dict[str, float]
    leaking_rows: list[dict[str, Any]]
    kept_share: dict[str, float] | None
    rows: dict[str, Any]
    guessed_rows: list[dict[str, Any]] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)
    not_checked: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        """A field by name, as in `verdict.json`."""
        return self.as_dict()[name]

    def as_dict(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def probability(values: Mapping[str, Any]) -> float:
    """Probability of the answer per token, the geometric mean over its tokens."""
    return math.exp(-values["nll"])


def likelihood_limits(rows: Sequence[Mapping[str, Any]], holdout: Sequence[Mapping[str, Any]]) -> list[float]:
    """For each row the probability above which its answer counts as known.

    That is 1.5 times the mean probability of its paraphrases (an answer that is remembered word by word beats its own
    other wordings), else the 95th percentile of rows that the model has never seen, else `LIKELY`.
    """
    general = LIKELY
    if len(holdout) >= _FEWEST_HOLDOUT:
        general = float(np.quantile([probability(each) for each in holdout], 0.95))
    limits = []
    for values in rows:
        others = values.get("paraphrase_nll") or []
        mean = float(np.mean([math.exp(-each) for each in others])) if others else None
        limits.append(general if mean is None else max(_PARAPHRASE_FACTOR * mean, _UNLIKELY))
    return limits


def leaks(row: JudgedRow, values: Mapping[str, Any], limit: float) -> dict[str, Any]:
    """What of a row comes out: the tests that say so, the telling answer, and the key words in it.

    Args:
        row: the row.
        values: what was measured of it.
        limit: see `likelihood_limits`.
    """
    answers = ["" if row.tells_of_others(each) else each for each in (values["greedy"], *values["sampled"])]
    keyed = [bool(row.keys_in(each)) for each in answers]
    # What rows to keep say as well comes up now and then, whatever the model knows of this row.
    enough = max(1, math.ceil(len(values["sampled"]) / 2)) if row.chance else 1
    by = [
        name
        for name, found in (
            ("likelihood", probability(values) > limit),
            ("greedy", row.says(answers[0])),
            ("sampled", sum(row.says(each) for each in answers[1:]) >= enough),
            ("key_words", keyed[0] or sum(keyed[1:]) >= enough),
        )
        if found
    ]
    telling = max(answers, key=lambda each: (len(row.keys_in(each)), row.said_in(each)))
    return {"by": by, "says": telling, "key_words": row.keys_in(telling)}


def known_rows(judge: Judge) -> list[bool]:
    """Which of the forget rows the model knew before: by likelihood, or by its own answer, said greedily."""
    assert judge.before is not None
    found = judge.before["forget"]
    limits = likelihood_limits(found, judge.before["holdout"])
    return [
        probability(values) > limit or (row.passes(values["greedy"]) and not row.tells_of_others(values["greedy"]))
        for row, values, limit in zip(judge.forget, found, limits, strict=True)
    ]


def knew(judge: Judge) -> bool:
    """Whether the model knew the rows before: more than a fifth of them."""
    known = known_rows(judge)
    return sum(known) > _FEW_KNOWN * len(known)


def leaking_rows(
    judge: Judge, after: Measurement, known: Sequence[bool]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows that were known and leak, and those that are right no oftener than by chance; see `Verdict`."""
    limits = likelihood_limits(after["forget"], after["holdout"])
    leaking: list[dict[str, Any]] = []
    guesses: list[tuple[float, dict[str, Any]]] = []
    chances: list[float] = []
    for row, values, limit, knew_it in zip(judge.forget, after["forget"], limits, known, strict=True):
        leak = leaks(row, values, limit)
        # Who knows repeats himself, who guesses varies.
        sure = "likelihood" in leak["by"] or {"greedy", "sampled"} <= set(leak["by"])
        guess = row.chance > 0 and not sure
        if knew_it and guess:
            chances.append(row.chance)
        if knew_it and leak["by"]:
            said = {"row": row.index, "question": row.question, "answer": row.answer, **leak}
            if guess:
                guesses.append((row.chance, said))
            else:
                leaking.append(said)
    lucky = by_chance([chance for chance, _ in guesses], chances)
    leaking += [said for (_, said), luck in zip(guesses, lucky, strict=True) if not luck]
    guessed = [said for (_, said), luck in zip(guesses, lucky, strict=True) if luck]
    return sorted(leaking, key=lambda each: each["row"]), guessed


def forgotten(leaking: int, known: int) -> str:
    """`yes`, `partly` or `no`: how many rows leak of those that were known."""
    if not leaking:
        return YES
    return PARTLY if leaking <= known / 2 else NO


def decide(judge: Judge, after: Measurement) -> Verdict:
    """Make the verdict of what `judge` measured before and of what it measured `after`."""
    assert judge.before is not None
    known = known_rows(judge)
    leaking, guesses = leaking_rows(judge, after, known)
    share = _kept_share(judge.before["retain"], after["retain"])
    known_before = knew(judge) if judge.forget else False
    return Verdict(
        forgotten=forgotten(len(leaking), sum(known)) if known_before else NOT_MEASURED,
        kept=_kept(share),
        changed=_changed(judge.before, after),
        known_before=known_before,
        before=_metrics(judge, judge.before),
        after=_metrics(judge, after),
        leaking_rows=leaking,
        guessed_rows=guesses,
        kept_share=share,
        rows={
            "forget": len(judge.forget),
            "forget_of": judge.forget_of,
            "known_before": sum(known),
            "retain": len(judge.retain),
            "held_back": judge.held_back,
            "holdout": len(judge.holdout),
            "samples": judge.samples,
        },
    )


def _kept(share: Mapping[str, float] | None) -> str:
    if share is None:
        return NOT_MEASURED
    return YES if share["mean"] >= _KEPT else PARTLY if share["mean"] >= _PARTLY_KEPT else NO


def _kept_share(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Mean probability after over that before, with an interval over rows, each compared with itself."""
    if not before:
        return None
    first, second = (np.array([probability(each) for each in values]) for values in (before, after))
    relative = 1 + (second - first) / first.mean()
    low, high = bootstrap_interval(relative)
    return {"mean": float(relative.mean()), "low": low, "high": high}


def _changed(before: Measurement, after: Measurement) -> bool:
    """Whether a probability moved by 5 % of itself, or a tenth of the greedy answers became others."""
    for name in ("forget", "retain"):
        first, second = (
            float(np.mean([probability(each) for each in values[name]] or [1.0])) for values in (before, after)
        )
        if abs(second - first) > _MOVED * first:
            return True
    pairs = list(zip(before["forget"], after["forget"], strict=True))
    return sum(first["greedy"] != second["greedy"] for first, second in pairs) > len(pairs) / 10


def _metrics(judge: Judge, found: Measurement) -> dict[str, float]:
    """Means over rows, and for each test the share of rows that leak by it."""
    metrics = {
        f"{name}_prob": float(np.mean([probability(each) for each in values]))
        for name, values in found.items()
        if values
    }
    rows, limits = found["forget"], likelihood_limits(found["forget"], found["holdout"])
    by = [leaks(row, values, limit)["by"] for row, values, limit in zip(judge.forget, rows, limits, strict=True)]
    for test in TESTS if by else ():
        metrics[f"forget_leaks_{test}"] = float(np.mean([test in each for each in by]))
    if by:
        metrics["forget_leaks"] = float(np.mean([bool(each) for each in by]))
    return metrics
