"""The models that an audited run is compared with, as far as records of runs tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearn_hf.common.run_record import RECORD, read_record


def target_of(folder: Path) -> str | None:
    """The model that the run in `folder` was unlearned from; `None` where it is no such run."""
    record = read_record(folder)
    before = record.get("configuration", {}).get("model_name_or_path")
    if record.get("verb") == "merge" and before is not None and Path(before).resolve() != folder.resolve():
        return target_of(Path(before))
    return before if record.get("verb") == "unlearn" else None


def other_rows(folder: Path, audited: Mapping[str, Any]) -> str | None:
    """Why the model in `folder` is no retain-only model of the data of a run, as far as its record tells.

    Args:
        folder: of the model.
        audited: the record of that run.
    """
    if not (folder / RECORD).is_file():
        return None
    record = read_record(folder)
    theirs, mine = record.get("data", {}), audited.get("data", {})
    learnt = theirs.get("trained_on", {}).get("train", {}).get("sha256")
    if learnt is not None and learnt == mine.get("trained_on", {}).get("retain", {}).get("sha256"):
        return None
    names = ("benchmark", "split", "fingerprint", "forget_part")
    same = mine.get("benchmark") is not None and all(theirs.get(name) == mine.get(name) for name in names)
    if same and record.get("configuration", {}).get("subset") == "retain":
        return None
    what = "has learnt the forget rows, too" if same else "was trained on other rows than this run keeps"
    return f"reference: {str(folder)!r} {what}; name a retain-only model of the same data, or none."
