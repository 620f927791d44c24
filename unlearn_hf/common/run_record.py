"""The record of a run, `run.json`: from it the run can be repeated, and whoever looks at runs knows what they were."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unlearn_hf.common.files import write_json
from unlearn_hf.common.locks import Owner, status_now
from unlearn_hf.common.versions import code_commit, versions

RECORD, CARD = "run.json", "README.md"
_SECRETS = ("token", "password", "secret")


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


def hide_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out tokens and the like. `max_new_tokens` is no secret; `hub_token` is."""
    return {
        name: "<hidden>" if value and name.split("_")[-1].lower() in _SECRETS else value
        for name, value in values.items()
    }


class RunRecord:
    """The file `run.json`: written when a run begins, and again when it ends.

    Args:
        folder: the run folder.
        verb: what runs.
        settings: what was given, by file or command line.
        configuration: every option with the value in force.
        data: what the data are, with fingerprints.
        machine: device and number of processes.
    """

    def __init__(
        self,
        folder: Path,
        verb: str,
        settings: Mapping[str, Any],
        configuration: Mapping[str, Any],
        data: Mapping[str, Any],
        machine: Mapping[str, Any],
    ) -> None:
        self.folder = folder
        self.content: dict[str, Any] = {
            "verb": verb,
            "status": "running",
            "started": now(),
            "finished": None,
            "process": asdict(Owner.this_process()),
            "settings": hide_secrets(settings),
            "configuration": hide_secrets(configuration),
            "seeds": {name: configuration.get(name) for name in ("seed", "data_seed")},
            "data": dict(data),
            "machine": {"system": platform.platform(), **machine},
            "versions": versions(),
            "commit": code_commit(),
        }

    def write(self, **changes: Any) -> None:
        """Write the record, with `changes`."""
        self.content.update(changes)
        write_json(self.folder / RECORD, self.content)

    def finish(self, status: str, **changes: Any) -> None:
        """Write the record of a run that ended."""
        self.write(status=status, finished=now(), **changes)


def changed_settings(
    record: Mapping[str, Any], configuration: Mapping[str, Any], names: Collection[str] | None = None
) -> list[str]:
    """Options whose value differs from that in the record of an earlier run, as `name: old -> new`.

    With `names`, only those are looked at.
    """
    earlier = record.get("configuration", {})
    current = json.loads(json.dumps(hide_secrets(configuration), default=str))
    free = ("resume", "overwrite")
    return [
        f"{name}: {earlier[name]} -> {value}"
        for name, value in current.items()
        if name in earlier and earlier[name] != value and name not in free and (names is None or name in names)
    ]
