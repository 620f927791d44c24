"""The verdict in plain sentences, and what to try next."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unlearn_hf.evaluation.verdict.facts import NO, NOT_MEASURED, PARTLY, TESTS, YES, Verdict

_LORA_RATE = 1e-4
_SHOWN = 3
_LONGEST = 160
_TEST_NAMES = {"likelihood": "likelihood", "greedy": "greedy answer", "sampled": "sampled answers",
               "key_words": "names, numbers and dates"}  # fmt: skip

TRUST = (
    "How far these tests can be trusted beyond very small models, where likelihood told those that knew the rows from "
    "those that never did in 95 of 100 pairs, greedy answers in 94, and where learning the rows again brought back "
    "half as much again as in a model that never knew (docs/meta_evaluation.md)."
)
"""Measured by `scripts/meta_evaluation.py`: faithfulness and relearning R of `forget_prob` and `forget_rouge`."""


def not_known(known: int, rows: int) -> str:
    """What is said of a model that has little to forget."""
    return f"the model did not know these rows ({known} of {rows} before training)"


def advice(verdict: Verdict, settings: Mapping[str, Any]) -> list[str]:
    """What to try next.

    Args:
        verdict: the facts.
        settings: `learning_rate`, `adapter` (whether one is trained), `retain_budget`, `uses_retain_rows`, and
            `ended_by`: the condition that held and so ended the run, where there was one.
    """
    rate = float(settings["learning_rate"])
    found = []
    if not verdict.known_before:
        found.append(
            "Check model_name_or_path, forget_file and template: the model and the prompt that learned these rows."
        )
    elif not verdict.changed:
        higher = max(5 * rate, _LORA_RATE) if settings["adapter"] else 5 * rate
        found.append(f"Nothing changed: try --learning_rate {higher:g}.")
    elif verdict.forgotten in (PARTLY, NO) and verdict.kept != NO:
        ended_by = settings.get("ended_by")
        found.append(
            "Rows still leak, though the run ended because its condition held: try another --method, or "
            f'--stop_when "{_stricter(ended_by)}".'
            if ended_by
            else f"Rows still leak: train longer (twice the --num_train_epochs), or try --learning_rate {2 * rate:g}."
        )
    if verdict.kept in (PARTLY, NO):
        budget = "" if settings.get("retain_budget") else ", or --retain_budget 0.02, which ends the run in time"
        more = f", more retain rows{budget}" if settings.get("uses_retain_rows", True) else ""
        found.append(f"Rows to keep have suffered: try --learning_rate {rate / 2:g}{more}.")
    return found


def _stricter(condition: str) -> str:
    """The condition with a quarter of its limits of `forget_prob`."""
    limit = re.compile(r"(forget_prob\s*<=?\s*)([\d.]+(?:e-?\d+)?)")
    return limit.sub(lambda found: f"{found[1]}{float(found[2]) / 4:g}", condition)


def not_checked(verdict: Verdict) -> list[str]:
    """What the verdict does not say."""
    rows = verdict.rows
    found = []
    if rows["forget"] < rows["forget_of"]:
        found.append(
            f"{rows['forget_of'] - rows['forget']} of {rows['forget_of']} rows to forget (a sample was checked)."
        )
    if not rows["holdout"]:
        found.append(
            "Rows that the model has never seen: none were given, so likelihoods are compared with paraphrases where "
            "rows have them, else with a fixed limit."
        )
    if not rows["held_back"] and rows["retain"]:
        found.append("Rows to keep that were not trained on: none were held back.")
    found.append(
        "Other wordings and languages of the questions, membership attacks, relearning, quantisation, and skills "
        "beyond the rows to keep (`unlearn-hf audit` tries most of them)."
    )
    if verdict.forgotten == YES:
        found.append(TRUST)
    return found


def sentences(verdict: Verdict, leaks: bool = True) -> list[str]:
    """The verdict for people, most important first.

    Args:
        verdict: the facts.
        leaks: show what leaking rows say; off where others read it, such as in a model card.
    """
    rows, cost = verdict.rows, verdict.cost
    found = []
    if not verdict.changed:
        found.append("Nothing changed: neither answers nor probabilities moved.")
    if verdict.forgotten == NOT_MEASURED:
        found.append(
            f"Forgotten: not measured, because {not_known(rows['known_before'], rows['forget'])}."
            if rows["forget"]
            else "Forgotten: not measured, because no row has both a prompt and an answer."
        )
    else:
        leaking = len(verdict.leaking_rows)
        by = [
            f"{sum(test in each['by'] for each in verdict.leaking_rows)} by {_TEST_NAMES[test]}"
            for test in TESTS
            if any(test in each["by"] for each in verdict.leaking_rows)
        ]
        found.append(
            f"Forgotten: {verdict.forgotten}. {leaking} of {rows['known_before']} rows that the model knew still "
            + ("leaks" if leaking == 1 else "leak")
            + (f" ({', '.join(by)})." if by else f", by likelihood, the greedy answer or {rows['samples']} samples.")
        )
        if verdict.guessed_rows:
            found.append(
                f"{len(verdict.guessed_rows)} more give the true answer, no oftener than a model that never saw them "
                "would by chance, because rows to keep have such answers, too (guessed_rows in verdict.json)."
            )
        found += [_leak_sentence(each) for each in verdict.leaking_rows[:_SHOWN] if leaks]
        if leaks and leaking > _SHOWN:
            found.append(f"  ({leaking - _SHOWN} more in verdict.json)")
    share = verdict.kept_share
    if share is None:
        found.append("Kept: not measured.")
    else:
        origin = "held back from training" if rows["held_back"] else "which were trained on"
        found.append(
            f"Kept: {verdict.kept}. Answers to keep have {100 * share['mean']:.1f} % of their probability before "
            f"(95 % interval {100 * share['low']:.1f} to {100 * share['high']:.1f}; {rows['retain']} rows, {origin})."
        )
    if cost:
        memory = f", peak memory {cost['peak_memory_mib']:.0f} MiB" if "peak_memory_mib" in cost else ""
        spent = ", ".join(f"{value:.0f} s {name}" for name, value in cost.items() if name != "peak_memory_mib")
        found.append(f"Cost: {spent}{memory}.")
    found += verdict.advice
    found += [f"Not checked: {each[0].lower()}{each[1:]}" for each in verdict.not_checked]
    return found


def _leak_sentence(leak: Mapping[str, Any]) -> str:
    words = f" [{', '.join(leak['key_words'])}]" if leak["key_words"] else ""
    says = f"says {_cut(leak['says'])!r}{words}" if leak["by"] != ["likelihood"] else "by likelihood alone"
    return f"  row {leak['row']}: {_cut(leak['question'])!r} {says}"


def _cut(text: str) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
