"""What a stop rule has seen during a run, as lines of a file that others can follow; needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

LOOKS_FILE = "stop_looks.jsonl"
"""Name of the file in a run folder: for each look a line with `step`, `score` (the trade-off) and measured values."""


def add_look(folder: Path, step: int, score: float, values: Mapping[str, float]) -> None:
    """Add a line."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOOKS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "score": score, **values}) + "\n")


def read_looks(folder: Path) -> dict[str, float]:
    """Step, as text, and trade-off of each whole line; empty where nothing was written."""
    path = folder / LOOKS_FILE
    if not path.is_file():
        return {}
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    return {str(line["step"]): line["score"] for line in map(json.loads, whole)}
