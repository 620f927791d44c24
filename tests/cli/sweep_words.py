"""Sweeps over a learning rate, with a program that stands for `unlearn`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from tests.cli.own_rows import own_words

RATES = "learning_rate=1e-5:1e-3:log"
_PROGRAM = Path(__file__).parent / "sweep_program.py"


def sweep_words(folder: Path, *more: str, **replaced: str | None) -> list[str]:
    """Words of such a sweep in `folder`; a keyword replaces an option, `None` leaves it out."""
    launcher = shlex.join([sys.executable, str(_PROGRAM)])
    given: dict[str, str | None] = {"space": RATES, "trials": "4", "launcher": launcher, **replaced}
    return ["sweep", *own_words(folder / "sweep", **given), *more]


def outcome(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "sweep" / "sweep.json").read_text())
