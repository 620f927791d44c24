"""Checkpoints of a run: which one is complete, and what a method adds to it."""

from __future__ import annotations

import json
from pathlib import Path

METHOD_STATE_FILE = "method_state.pt"


def newest_complete_checkpoint(folder: Path) -> Path:
    """The newest checkpoint in `folder` whose trainer state, written last, can be read.

    Raises:
        ValueError: when there is none.
    """

    def step(path: Path) -> int:
        return int(path.name.rsplit("-", 1)[1])

    candidates = [path for path in folder.glob("checkpoint-*") if path.name.rsplit("-", 1)[1].isdigit()]
    for path in sorted(candidates, key=step, reverse=True):
        state = path / "trainer_state.json"
        try:
            json.loads(state.read_text())
        except (OSError, json.JSONDecodeError):
            continue
        return path
    raise ValueError(f"resume: {str(folder)!r} holds no complete checkpoint; set save_strategy, or start afresh.")
