"""The record of a run, `run.json`, as it is read: by the verbs, and by whoever looks at finished runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unlearn_hf.common.locks import status_now

RECORD, CARD = "run.json", "README.md"


def now() -> str:
    """The time in UTC, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def run_of(folder: Path) -> Path | None:
    """The run that the model in `folder` is of: there, or, of a checkpoint, above; `None` where there is no record."""
    return next((each for each in (folder, folder.parent) if (each / RECORD).is_file()), None)


def read_record(folder: Path) -> dict[str, Any]:
    """The record of the run in `folder`, or an empty one when there is none.

    Its status is that of now: `running`, `finished`, `diverged`, `interrupted` (by Ctrl-C), `failed`, or `killed`
    where it says that it runs and its process is gone.

    Raises:
        ValueError: when the file is there and broken.
    """
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:  # no JSON, or no text
        raise ValueError(f"{path}: not a record of a run ({problem}).") from problem
    if not isinstance(record, dict):
        return {}
    return {**record, "status": status_now(record)} if "status" in record else record
