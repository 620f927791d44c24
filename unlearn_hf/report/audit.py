"""The audit as a person reads it: one table, and words that claim evidence and not proof."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from unlearn_hf.audit import AUDIT_FILE
from unlearn_hf.common.files import read_json
from unlearn_hf.report.tables import print_table

NO_BASELINE = "no baseline"
_COLUMNS = ("before", "after", "retain", "target", "came_back")
_HEADINGS = {"retain": "retain-only", "came_back": "came back"}
_NEEDS = {"retain": ("retain",), "target": ("target",), "came_back": ("retain", "target")}


def _shown(content: Mapping[str, Any], entry: Mapping[str, Any], name: str) -> str:
    number = entry.get(name)
    if any(content["models"][role] == NO_BASELINE for role in _NEEDS.get(name, ())):
        return NO_BASELINE
    if number is None or number["value"] is None:
        return ""
    low, high = number["low"], number["high"]
    interval = f" [{low:.2f}, {high:.2f}]" if name in ("after", "came_back") and low is not None else ""
    return f"{number['value']:.3f}{interval}"


def audit_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """Heading and rows of the table; of attacks with many measures, those that the attack names."""
    rows = [["attack", "measure", "rows", *(_HEADINGS.get(name, name) for name in _COLUMNS), "R or Q"]]
    for entry in content["results"]:
        if not any(fnmatchcase(entry["measure"], each) for each in content["attacks"][entry["attack"]]["shown"]):
            continue
        name = "R_one_sided" if "R_one_sided" in entry else "Q"
        held = f"{name[0]} {_plain(entry[name])}" if name in entry else ""
        attack = entry["attack"] if entry["variant"] == "all" else f"{entry['attack']}: {entry['variant']}"
        numbers = [_shown(content, entry, column) for column in _COLUMNS]
        rows.append([attack, entry["measure"], f"{entry['n']} {entry['judges']}", *numbers, held])
    return rows


def _plain(number: Mapping[str, float]) -> str:
    return f"{number['value']:.2f} [{number['low']:.2f}, {number['high']:.2f}]"


def audit_words(content: Mapping[str, Any]) -> list[str]:
    """What the table means, in sentences."""
    words = [str(content["claim"])]
    for role, what, option in (
        ("retain", "a retain-only model", "reference"),
        ("target", "the model before unlearning", "target"),
    ):
        name = content["models"][role]
        if name == NO_BASELINE:
            words.append(f"No baseline: {what} (--{option}) was not given, so nothing here is relative to one.")
        else:
            words.append(f"Compared with {what}, {name}.")
    words += [f"Not tried: {name}, because {reason}." for name, reason in content["left_out"].items()]
    if content["robustness"]:
        found = "; ".join(f"{name} {_plain(each['robustness'])}" for name, each in content["robustness"].items())
        words.append(
            "Robustness (harmonic mean of R after relearning all forget rows and Q in NF4; 1: no more came back than "
            f"for the retain-only model, and nothing by rounding; it says nothing of what was kept): {found}."
        )
    return words


def print_audit(content: Mapping[str, Any]) -> None:
    """Print table and sentences."""
    print()
    print_table(audit_rows(content))
    print()
    for sentence in audit_words(content):
        print(sentence)


def audit_section(folder: Path) -> list[str]:
    """The section of a model card as lines of Markdown; no text of rows is in it."""
    content = read_json(folder / AUDIT_FILE)
    heading, *rows = audit_rows(content)
    table = [heading, ["---"] * len(heading), *rows]
    lines = ["## Audit", "", *(f"| {' | '.join(row)} |" for row in table), ""]
    return [*lines, *(f"- {sentence}" for sentence in audit_words(content)), ""]
