"""Defaults for rows of one's own, which no recipe was made for: by the number of rows, and whole model or adapter.

`docs/defaults.md` says what they were tried on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

RATE_TIMES_WIDTH = 0.04
"""Learning rate of a whole model times the size of its hidden states: wide models move more for the same rate."""
ADAPTER_FACTOR = 6
_USUAL_WIDTH = 1024
STOP_WHEN = "forget_prob < 0.02 and retain_prob > 0.97 * initial and step >= 80"
_STEPS = 120
_FEWEST_EPOCHS = 20
_MOST_HELD_BACK, _FEW, _FEWEST_RETAIN = 64, 20, 10


def row_defaults(
    forget: int,
    retain: int,
    adapter: bool,
    width: int | None = None,
    given: Mapping[str, Any] | None = None,
    can_stop: bool = True,
) -> dict[str, Any]:
    """Options for a run on one's own rows that are not given.

    Args:
        forget: rows to forget.
        retain: rows to keep; 0 where the method needs none.
        adapter: whether an adapter is trained.
        width: size of the model's hidden states, where its configuration says that.
        given: options that are given.
        can_stop: whether the method can be stopped at any step.
    """
    given = given or {}
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    # Few rows say little: one lost answer of twelve is 8 %.
    held = min(_MOST_HELD_BACK, max(retain // 5, min(_FEW, retain // 3))) if retain >= _FEWEST_RETAIN else 0
    batch = given.get("per_device_train_batch_size")
    if batch is not None:
        held = max(0, min(held, retain - batch * processes))
    batch = batch or _batch_for(forget, (retain or forget) - held, processes)
    per_epoch = math.ceil(forget / (batch * processes))
    rate = RATE_TIMES_WIDTH / (width or _USUAL_WIDTH) * (ADAPTER_FACTOR if adapter else 1)
    chosen = {
        "learning_rate": float(f"{rate:.1g}"),
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 5,
        "per_device_train_batch_size": batch,
        "num_train_epochs": max(_FEWEST_EPOCHS, math.ceil(_STEPS / per_epoch)),
        "held_back_rows": held,
    }
    if given.get("reinforced_model") is not None:  # of whp, which trains nothing then
        chosen = {"held_back_rows": held}
    if can_stop:
        chosen["stop_when"] = STOP_WHEN
        if given.get("stop_when", STOP_WHEN) is not None:
            chosen["stop_on_path"] = True
    return {name: value for name, value in chosen.items() if name not in given}


def in_words(chosen: dict[str, Any], forget: int) -> str:
    """One line that tells what was chosen."""
    values = ", ".join(f"{name} {value}" for name, value in chosen.items())
    return f"Chosen for {forget} rows to forget (docs/defaults.md): {values}."


def _batch_for(forget: int, retain: int, processes: int) -> int:
    """Rows per process: more for more rows, and no more than there are."""
    batch = 4 if forget <= 16 else 8 if forget <= 128 else 16
    return max(1, min(batch, math.ceil(forget / processes), retain // processes))
