"""The audit as a person reads it: one table, and words that claim evidence and not proof."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_hf.audit import AUDIT_FILE

_COLUMNS = ("before", "after", "retain", "target", "came_back")
_HEADINGS = {"retain": "retain-only", "came_back": "came back"}
_MAIN = ("extraction_strength", "rouge_l_recall")


def _shown(entry: Mapping[str, Any], name: str) -> str:
    number = entry.get(name)
    if number is None or number["value"] is None:
        return "no baseline" if name in ("retain", "target", "came_back") else ""
    low, high = number["low"], number["high"]
    interval = f" [{low:.2f}, {high:.2f}]" if name in ("after", "came_back") and low is not None else ""
    return f"{number['value']:.3f}{interval}"


def audit_rows(content: Mapping[str, Any], every: bool = False) -> list[list[str]]:
    """Heading and rows of the table; the main measures of attacks that have several, or every one."""
    rows = [["attack", "measure", "rows", *(_HEADINGS.get(name, name) for name in _COLUMNS), "R or Q"]]
    for entry in content["results"]:
        measures = {each["measure"] for each in content["results"] if each["attack"] == entry["attack"]}
        if not every and measures & set(_MAIN) and entry["measure"] not in _MAIN:
            continue
        name = "R_one_sided" if "R_one_sided" in entry else "Q"
        held = f"{name[0]} {entry[name]['value']:.2f}" if name in entry else ""
        attack = entry["attack"] if entry["variant"] == "all" else f"{entry['attack']}: {entry['variant']}"
        numbers = [_shown(entry, column) for column in _COLUMNS]
        rows.append([attack, entry["measure"], f"{entry['n']} {entry['judges']}", *numbers, held])
    return rows


def audit_words(content: Mapping[str, Any]) -> list[str]:
    """What the table means, in sentences."""
    words = [str(content["claim"])]
    for role, what in (("retain", "a retain-only model (--retain_run)"), ("target", "the model before (--target)")):
        if content["baselines"][role] == "no baseline":
            words.append(f"No baseline: {what} was not given, so nothing is relative to it.")
    words += [f"Left out: {name}, because {reason}." for name, reason in content["left_out"].items()]
    if content["robustness"]:
        found = ", ".join(f"{name} {value:.2f}" for name, value in content["robustness"].items())
        words.append(f"Robustness (harmonic mean of R and Q; 1: no more came back than for the retain-only): {found}.")
    return words


def print_audit(content: Mapping[str, Any]) -> None:
    """Print table and sentences."""
    rows = audit_rows(content)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
    for sentence in audit_words(content):
        print(sentence)


def card_audit(folder: Path) -> dict[str, Any] | None:
    """What a model card says of the audit of a run, where there is one; no text of rows."""
    path = folder / AUDIT_FILE
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    heading, *rows = audit_rows(content)
    return {"heading": heading, "rows": rows, "sentences": audit_words(content)}


def audit_section(folder: Path) -> Sequence[str]:
    """The section of a card as lines of Markdown; none without an audit."""
    found = card_audit(folder)
    if found is None:
        return []
    table = [found["heading"], ["---"] * len(found["heading"]), *found["rows"]]
    lines = ["## Audit", "", *(f"| {' | '.join(row)} |" for row in table), ""]
    return [*lines, *(f"- {sentence}" for sentence in found["sentences"]), ""]
