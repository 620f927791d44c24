"""Short training on rows of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TRAINING = ["--num_train_epochs", "1", "--per_device_train_batch_size", "4", "--disable_tqdm", "--use_cpu"]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
