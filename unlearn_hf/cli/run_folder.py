"""The folder of a run: its name, and that nothing in it is overwritten."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

from unlearn_hf.cli.arguments import DataArguments, ModelArguments
from unlearn_hf.common.locks import LOCK, check_free


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


def set_aside(path: Path, told: str, names: Collection[str] | None = None) -> Path | None:
    """Move what is in a folder to `NAME.backup-1`, `-2`, ..., and say where it went, after the words `told`.

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
    print(f"{told} {backup}")
    return backup
