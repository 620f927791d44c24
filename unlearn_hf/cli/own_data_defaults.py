"""Defaults for rows of one's own, which no recipe was made for: by the number of rows, and whole model or adapter.

`docs/defaults.md` says what they were tried on.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from unlearn_hf.cli.parsing import Setting, word_of
from unlearn_hf.cli.training_run import TrainingRun

ORIGIN = "own data"
RATE_TIMES_WIDTH = 0.04
"""Learning rate of a whole model times the size of its hidden states: wide models move more for the same rate."""
ADAPTER_FACTOR = 5
_USUAL_WIDTH = 1024
STOP_WHEN = "forget_prob < 0.02 and retain_prob > 0.95 * initial"
_STEPS = 120
_FEWEST_EPOCHS = 5
_MOST_HELD_BACK, _FEWEST_RETAIN = 64, 10
# They leave the retain rows out, and their models exist only after the last step, so that nothing can stop them.
WITHOUT_RETAIN_ROWS = ("task_vector", "whp")


def own_data_defaults(
    forget: int, retain: int, adapter: bool, width: int | None = None, processes: int = 1, batch: int | None = None
) -> dict[str, Any]:
    """Options for a run on one's own rows.

    Args:
        forget: rows to forget.
        retain: rows to keep; 0 where the method needs none.
        adapter: whether an adapter is trained.
        width: size of the model's hidden states, where its configuration says that.
        processes: of the launch.
        batch: rows per process, where that is given.
    """
    held = min(_MOST_HELD_BACK, retain // 5) if retain >= _FEWEST_RETAIN else 0
    if batch is not None:
        held = max(0, min(held, retain - batch * processes))
    batch = batch or _batch_for(forget, (retain or forget) - held, processes)
    per_epoch = math.ceil(forget / (batch * processes))
    rate = RATE_TIMES_WIDTH / (width or _USUAL_WIDTH) * (ADAPTER_FACTOR if adapter else 1)
    return {
        "learning_rate": float(f"{rate:.1g}"),
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 5,
        "per_device_train_batch_size": batch,
        "num_train_epochs": max(_FEWEST_EPOCHS, math.ceil(_STEPS / per_epoch)),
        "held_back_rows": held,
        "stop_when": STOP_WHEN,
    }


def add_own_data_defaults(run: TrainingRun, forget: int, retain: int) -> None:
    """Set what is not given, on a run over files of one's own."""
    if run.data.benchmark is not None:
        return
    from unlearn_hf.models.loading import configured_width

    name = str(run.model.model_name_or_path)
    given = word_of(run.settings, "per_device_train_batch_size") or ""
    adapter = run.lora.use_lora or (Path(name) / "adapter_config.json").is_file()
    width = configured_width(name, bool(run.training.trust_remote_code))
    chosen = own_data_defaults(
        forget,
        retain,
        adapter,
        width,
        int(os.environ.get("WORLD_SIZE", "1")),
        int(given) if given.isdigit() and int(given) else None,
    )
    if run.method in WITHOUT_RETAIN_ROWS:
        del chosen["stop_when"]
    for name, value in chosen.items():
        run.settings.setdefault(name, Setting(value, ORIGIN))


def _batch_for(forget: int, retain: int, processes: int) -> int:
    """Rows per process: more for more rows, and no more than there are."""
    batch = 4 if forget <= 16 else 8 if forget <= 128 else 16
    return max(1, min(batch, math.ceil(forget / processes), retain // processes))
