"""The folder of a run: protected against overwriting, with a record from which the run can be repeated."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unlearn_hf.cli.arguments import DataArguments, ModelArguments
from unlearn_hf.common.files import write_json
from unlearn_hf.common.locks import LOCK, Owner, check_free
from unlearn_hf.common.run_record import RECORD, now
from unlearn_hf.common.versions import code_commit, versions

_SECRETS = ("token", "password", "secret")


def default_folder(data: DataArguments, model: ModelArguments, last: str, adapter: bool) -> str:
    """`runs/DATA_MODEL_LAST`."""
    if data.benchmark is not None:
        split = None if last == "full" and data.unit.one_target else data.split
        parts = ["mini" if data.source == "mini" else None, data.benchmark, split, data.forget_part]
    else:
        file = getattr(data, "train_file", None) or data.forget_file or "own"
        parts = [Path(file).name.partition(".")[0]]
    parts += [Path(str(model.model_name_or_path)).name, last, *(["lora"] if adapter else [])]
    return str(Path("runs") / "_".join(str(part) for part in parts if part is not None))


def check_run_folder(path: Path, overwrite: bool, resume: bool) -> None:
    """Refuse a folder that holds something, unless it is to be continued or set aside.

    Raises:
        ValueError: for such a folder, for one that another process works in, for a file in its place, or for nothing
            to resume from.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"output_dir: {str(path)!r} is a file; name a folder.")
    check_free(path)
    above = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not above.is_dir():
        raise ValueError(f"output_dir: {str(path)!r} cannot be made, because {str(above)!r} is a file; name another.")
    try:
        tempfile.TemporaryDirectory(dir=above).cleanup()  # permissions do not tell of a read-only file system
    except OSError as problem:
        raise ValueError(
            f"output_dir: nothing can be written in {str(above)!r} ({problem.strerror}); name another folder for "
            f"{str(path)!r}."
        ) from problem
    occupied = path.is_dir() and any(each.name != LOCK for each in path.iterdir())
    if overwrite and occupied and Path.cwd().is_relative_to(path.resolve()):
        raise ValueError(
            f"output_dir: {str(path)!r} holds the working directory; name a folder that can be set aside."
        )
    if resume and not occupied:
        raise ValueError(f"resume: {str(path)!r} holds no run; leave out --resume to begin one.")
    if occupied and not (overwrite or resume):
        raise ValueError(
            f"output_dir: {str(path)!r} is not empty; --resume continues that run, --overwrite sets it aside and "
            "begins afresh, and --output_dir names another folder."
        )


def set_aside(path: Path, names: Collection[str] | None = None) -> Path | None:
    """Move what is in a folder to `NAME.backup-1`, `-2`, ..., and say where it went.

    With `names`, only the entries of these names move there; a lock stays in any case.
    """
    found = [each for each in path.iterdir() if each.name != LOCK] if path.is_dir() else []
    if names is not None:
        found = [each for each in found if each.name in names]
    if not found:
        return None
    if path.name in ("", ".."):
        path = path.resolve()
    number = 1
    while (backup := path.with_name(f"{path.name}.backup-{number}")).exists():
        number += 1
    backup.mkdir()
    for each in found:
        each.rename(backup / each.name)
    return backup


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
