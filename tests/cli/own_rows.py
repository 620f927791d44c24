"""Short training on rows of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TRAINING = ["--num_train_epochs", "1", "--per_device_train_batch_size", "4", "--disable_tqdm", "--use_cpu"]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def own_words(folder: Path, /, **replaced: str | None) -> list[str]:
    """Options of NPO on own rows, for a run in `folder`; a keyword replaces or adds one, `None` leaves it out."""
    options: dict[str, str | None] = {
        "method": "npo",
        "model_name_or_path": "model",
        "forget_file": "forget.jsonl",
        "retain_file": "retain.jsonl",
        "output_dir": str(folder),
        **replaced,
    }
    return [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]
