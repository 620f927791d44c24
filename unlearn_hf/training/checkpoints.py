"""Checkpoints of a run: what is in them, which are intact, and which are kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from unlearn_hf.common.files import write_json
from unlearn_hf.models.paths import safetensors_header

METHOD_STATE_FILE = "method_state.pt"
MANIFEST = "manifest.json"
_WEIGHTS = ("model", "adapter_model", "pytorch_model", "global_step")
_OPTIMIZER = ("optimizer", "global_step")  # the second is DeepSpeed's folder of both
_BLOCK, _BLOCKS = 128 * 1024, 64


def begin_checkpoint(folder: Path) -> None:
    """Make the folder of a checkpoint, without what an abandoned run left in it, and mark it as unfinished."""
    if folder.exists():
        shutil.rmtree(folder)
    write_json(folder / MANIFEST, {"complete": False})


def finish_checkpoint(folder: Path) -> None:
    """Record every file with its size and hash; to be called when all ranks have written theirs."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {str(path.relative_to(folder)): {"bytes": path.stat().st_size, "blake2b": _hash(path)} for path in paths}
    write_json(folder / MANIFEST, {"complete": True, "files": files})


def _hash(path: Path) -> str:
    """Hash of a file; of one above 8 MiB, of 64 blocks spread over it, first and last among them.

    What kills, full disks and broken copies do (cut, leave out, fill with zeros) shows in these; a checkpoint of some
    100 GB would take minutes to read as a whole, at every save and at every resumption.
    """
    size, digest = path.stat().st_size, hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        if size <= _BLOCK * _BLOCKS:
            digest.update(file.read())
        else:
            for index in range(_BLOCKS):
                file.seek((size - _BLOCK) * index // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def damage(folder: Path, needed: Collection[str] = ()) -> str | None:
    """Why a run cannot be resumed from `folder` as if it had never stopped; `None` if it can.

    A checkpoint of version 0.1 has no manifest. There, what is missing, cut or not to be parsed is noticed.

    Args:
        folder: a checkpoint.
        needed: files that must be there beyond those of every checkpoint.
    """
    if not (folder / "trainer_state.json").is_file() and not (folder / MANIFEST).is_file():
        return "it has no trainer_state.json"
    for path in (folder / "trainer_state.json", folder / MANIFEST):
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except (OSError, ValueError):
            return f"{path.name} cannot be read"
    if content is not None and not content.get("complete"):
        return "it was not written to its end"
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    for name, record in (content or {}).get("files", {}).items():
        if name not in found:
            return f"{name} is missing"
        size = found[name].stat().st_size
        if size != record["bytes"]:
            return f"{name} has {size} bytes, not {record['bytes']}"
        if _hash(found[name]) != record["blake2b"]:
            return f"the content of {name} has changed since it was written"
    names = {Path(name).parts[0] for name in found}
    for what, beginnings in (("weights", _WEIGHTS), ("state of the optimizer", _OPTIMIZER)):
        if not any(name.startswith(beginnings) for name in names):
            return f"it has no {what}" + (" (save_only_model leaves it out)" if what != "weights" else "")
    if not any(name.startswith("global_step") for name in names):
        needed = ("trainer_state.json", "scheduler.pt", *needed)
    if absent := [name for name in needed if name not in names]:
        return f"{absent[0]} is missing"
    if not any(name.startswith("rng_state") for name in names):
        return "rng_state.pth is missing"
    return None if content is not None else _unreadable(found)


def _unreadable(files: dict[str, Path]) -> str | None:
    """The first file that is cut or cannot be parsed, where no manifest says what they were."""
    for name, path in sorted(files.items()):
        try:
            if path.suffix == ".safetensors":
                header = safetensors_header(path)
                if header is None or header[1] != path.stat().st_size:
                    return f"{name} cannot be read"
            elif path.suffix in (".pt", ".pth", ".bin"):
                with zipfile.ZipFile(path) as archive:  # its table of contents stands at the end
                    archive.infolist()
            elif path.suffix == ".json":
                weights = json.loads(path.read_text(encoding="utf-8"))
                if path.name.endswith(".index.json"):
                    shards = {str(Path(name).parent / shard) for shard in weights["weight_map"].values()}
                    if absent := shards - files.keys():
                        return f"{min(absent)} is missing"
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return f"{name} cannot be read"
    return None


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints in `folder`, intact or not, by step."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def newest_complete_checkpoint(folder: Path, needed: Collection[str] = ()) -> Path:
    """The newest checkpoint in `folder` that is intact; a warning says when that is not the newest one.

    Args:
        folder: of the run.
        needed: see `damage`.

    Raises:
        ValueError: when there is none, saying what is wrong with each.
    """
    damaged: list[str] = []
    for path in reversed(checkpoints(folder)):
        problem = damage(path, needed)
        if problem is None:
            if damaged and os.environ.get("RANK", "0") == "0":
                warnings.warn(f"{'; '.join(damaged)}: going on from {path.name}, which is intact.", stacklevel=2)
            return path
        damaged.append(f"{path.name} is damaged ({problem})")
    found = f" ({'; '.join(damaged)})" if damaged else ""
    raise ValueError(
        f"resume: {str(folder)!r} holds no complete checkpoint{found}; begin afresh. A finished run keeps none unless "
        "keep_checkpoints says so, and save_strategy 'no' writes none."
    )


def drop_checkpoints(latest: Path, limit: int | None, best: str | None) -> None:
    """Delete checkpoints beyond `limit`; to be called when `latest` has been finished, never before.

    Args:
        latest: always kept.
        limit: how many are kept; `None` keeps all. The best one is kept even beyond it.
        best: folder of the best one.
    """
    if limit is None or limit < 1:
        return
    others = [path for path in checkpoints(latest.parent) if path != latest and str(path) != str(best)]
    kept = max(0, limit - 1 - (best is not None and str(latest) != str(best)))
    # Those of later steps are of a run that was abandoned for an earlier checkpoint.
    others.sort(key=lambda path: (_step(path) < _step(latest), _step(path)))
    for path in others[: len(others) - kept]:
        shutil.rmtree(path, ignore_errors=True)
