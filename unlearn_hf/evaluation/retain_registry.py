"""Results of retain-only models, registered beside the runs, so that later runs find the one that fits them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from unlearn_hf.common.files import read_json, write_json
from unlearn_hf.common.locks import opened_alone
from unlearn_hf.common.run_record import now, read_record, run_of
from unlearn_hf.evaluation.evaluator import TableEvaluator
from unlearn_hf.models.weights import BaseModel

REGISTRY = "retain_results.json"
_ENTRIES = "retain_results"
_NEEDED = ("file", "sha256", "evaluated", "trained", "base_model")


def base_of(name: str) -> BaseModel | None:
    """What the target was fine-tuned from that the model `name` is, or was unlearned from; `None` where unknown.

    The records of runs tell, and an adapter without one names its base itself.

    Raises:
        ValueError: for a broken record.
    """
    seen: set[Path] = set()
    while (folder := Path(name)).is_dir() and folder.resolve() not in seen:
        seen.add(folder.resolve())
        home = run_of(folder)
        if home is None:
            adapter = folder / "adapter_config.json"
            base = read_json(adapter).get("base_model_name_or_path") if adapter.is_file() else None
            return BaseModel.named(base) if base else None
        record = read_record(home)
        before = record.get("configuration", {}).get("model_name_or_path")
        if not before:
            return None
        if record.get("verb") not in ("unlearn", "merge"):
            return BaseModel.named(before)
        name = before
    return None


def read_registry(path: Path) -> list[dict[str, Any]]:
    """The entries, oldest first; none where there is no file.

    Raises:
        ValueError: when the file is no registry.
    """
    if not path.exists():
        return []
    content = read_json(path)
    entries = content.get(_ENTRIES) if isinstance(content, dict) else None
    sound = isinstance(entries, list) and all(
        isinstance(each, dict) and set(_NEEDED) <= each.keys() for each in entries
    )
    if not sound:
        raise ValueError(
            f"retain_registry: {str(path)!r} is no list of registered retain results; name another file, or move this "
            "one away."
        )
    assert isinstance(entries, list)
    return entries


def register(path: Path, result: Path, evaluated: dict[str, Any], trained: dict[str, Any], base: BaseModel) -> None:
    """Add a result file to the registry, in place of an older entry for the same file; other processes wait.

    Args:
        path: the registry, made if absent.
        result: an `evaluation.json`; named relative to the registry, so that both can be moved together.
        evaluated: what was evaluated, see `evaluated_by`.
        trained: what it was trained on, see `trained_on`.
        base: what the retain model was fine-tuned from.

    Raises:
        ValueError: when the file at `path` is no registry.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.path.relpath(result.resolve(), path.resolve().parent)
    entry = {
        "file": file,
        "sha256": _digest(result),
        "evaluated": evaluated,
        "trained": trained,
        "base_model": {"name": base.name, "fingerprint": base.fingerprint},
        "registered": now(),
    }
    lock = path.with_name(f".{path.name}.lock")
    with opened_alone(lock):
        entries = [each for each in read_registry(path) if each["file"] != file]
        write_json(path, {_ENTRIES: [*entries, entry]})
        lock.unlink(missing_ok=True)


def evaluated_by(evaluator: Any) -> dict[str, Any] | None:
    """What an evaluator measures: benchmark, fingerprint of the rows, protocol, template and further settings."""
    if not isinstance(evaluator, TableEvaluator):
        return None
    found = {
        "benchmark": evaluator.benchmark,
        "fingerprint": evaluator.data_fingerprint(),
        "protocol": evaluator.protocol,
        "settings": evaluator.settings(),
    }
    ready: dict[str, Any] = json.loads(json.dumps(found))
    return ready


def find(path: Path, evaluated: dict[str, Any], trained: dict[str, Any], model: str) -> tuple[list[Path], list[str]]:
    """Registered results for an evaluation of `model`.

    Args:
        path: the registry.
        evaluated: what will be evaluated.
        trained: the data of the model's own run.
        model: its name, from which its base model follows.

    Returns:
        Result files, newest first, and why others over the same rows are not taken.
    """
    found: list[Path] = []
    reasons: list[str] = []
    try:
        entries = read_registry(path)
        base = base_of(model) if entries else None
    except ValueError as problem:
        return [], [f"{path} is not read ({problem})"]
    for entry in reversed(entries):
        theirs = entry["evaluated"]
        if any(theirs.get(name) != evaluated[name] for name in ("benchmark", "fingerprint")):
            continue
        file = Path(os.path.relpath(path.absolute().parent / entry["file"]))
        reason = _why_not(entry, file, evaluated, trained, base)
        if reason is None and file.resolve().parent == Path(model).resolve():
            continue  # the retain model itself
        if reason is None:
            found.append(file)
        else:
            reasons.append(f"{file} is not taken: {reason}")
    return found, reasons


def _why_not(
    entry: dict[str, Any], file: Path, evaluated: dict[str, Any], trained: dict[str, Any], base: BaseModel | None
) -> str | None:
    """Why a registered result cannot be compared with, or `None`."""
    theirs = BaseModel(entry["base_model"].get("name"), entry["base_model"].get("fingerprint"))
    if base is None:
        return (
            f"it is of base model {theirs.name}, and no run.json says what this model was fine-tuned from; name it "
            "with --retain_results if they belong together"
        )
    both = theirs.fingerprint and base.fingerprint
    if theirs.fingerprint != base.fingerprint if both else theirs.name != base.name:
        changed = f"{theirs.name} as it was then" if theirs.name == base.name else theirs.name
        return f"it is of base model {changed}, and this model of {base.name}"
    if not file.is_file():
        return "the file is gone"
    if _digest(file) != entry["sha256"]:
        return "the file has changed since it was registered"
    settings = {**entry["evaluated"].get("settings", {}), "protocol": entry["evaluated"].get("protocol")}
    mine = {**evaluated["settings"], "protocol": evaluated["protocol"]}
    if other := sorted(name for name in {*settings, *mine} if settings.get(name) != mine.get(name)):
        shown = ", ".join(f"{name} {settings.get(name)!r} there and {mine.get(name)!r} here" for name in other)
        return f"it was evaluated otherwise ({shown})"
    if entry["trained"].get("forget_part") != trained["forget_part"]:
        return f"it was retrained without {entry['trained'].get('forget_part') or 'the whole forget set'}"
    if entry["trained"].get("max_retain_rows") not in (None, trained["max_retain_rows"]):
        return f"it was retrained on {entry['trained']['max_retain_rows']} retain rows only"
    return None


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
