"""Sweeps over a learning rate, with a program that stands for `unlearn`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

RATES = "learning_rate=1e-5:1e-3:log"
_PROGRAM = Path(__file__).parent / "sweep_program.py"


def sweep_words(folder: Path, *more: str, **replaced: str | None) -> list[str]:
    """Words of such a sweep in `folder`; a keyword replaces an option, `None` leaves it out."""
    options: dict[str, str | None] = {
        "method": "npo",
        "model_name_or_path": "model",
        "forget_file": "forget.jsonl",
        "retain_file": "retain.jsonl",
        "output_dir": str(folder / "sweep"),
        "space": RATES,
        "trials": "4",
        "launcher": shlex.join([sys.executable, str(_PROGRAM)]),
        **replaced,
    }
    given = [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]
    return ["sweep", *given, *more]


def outcome(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "sweep" / "sweep.json").read_text())
