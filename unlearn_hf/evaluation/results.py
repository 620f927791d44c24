"""Our own result files: `evaluation.json` with the aggregates and `samples.parquet` with the values per sample.

The JSON file names everything that a number depends on, and holds a hash of the table, so that a table of another
evaluation is never read in its place. Both round-trip bit for bit.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from unlearn_hf.common.checks import check_choice
from unlearn_hf.common.files import read_json, whole_file, write_json
from unlearn_hf.common.versions import versions
from unlearn_hf.evaluation import RESULT_FILE, SAMPLES_FILE
from unlearn_hf.evaluation.logs.checked_values import mapping
from unlearn_hf.evaluation.metric_value import MetricValue
from unlearn_hf.evaluation.sample_table import Protocol

FORMAT = "unlearn_hf.evaluation"
FORMAT_VERSION = 1
_FIELDS: dict[str, tuple[Any, ...] | None] = {
    "format_version": tuple(range(1, FORMAT_VERSION + 1)),
    "benchmark": None,
    "protocol": get_args(Protocol),
    "compatibility": (None, "open_unlearning"),
    "metrics": None,
    "samples": None,
}


def write_results(
    folder: str | os.PathLike[str],
    values: Mapping[str, MetricValue],
    samples: pd.DataFrame,
    *,
    benchmark: str,
    protocol: str = "all",
    compatibility: str | None = None,
    settings: Mapping[str, Any] | None = None,
    fingerprint: str | None = None,
    seconds: Mapping[str, float] | None = None,
    attack_model: Mapping[str, Any] | None = None,
) -> Path:
    """Write `evaluation.json` and `samples.parquet` into a folder, replacing older ones.

    Args:
        folder: made if absent.
        values: aggregates.
        samples: per-sample table; columns of lists are kept as lists.
        benchmark: its name.
        protocol: protocol that the values were computed by (the table may hold more rows).
        compatibility: the compatibility that they were computed with.
        settings: what else they depend on; JSON-ready.
        fingerprint: hash of the evaluated data.
        seconds: how long each pass took.
        attack_model: name and fingerprint of the model that an attack compared with.

    Returns:
        The path of `evaluation.json`.

    Raises:
        ValueError: if a value is not finite, which JSON cannot hold.
    """
    folder = Path(folder)
    if infinite := [name for name, metric in values.items() if not np.isfinite(metric.value)]:
        raise ValueError(f"the values of {infinite} are not finite and cannot be written to JSON.")
    with whole_file(folder / SAMPLES_FILE) as table:
        samples.to_parquet(table, index=False)
        digest = hashlib.sha256(table.read_bytes()).hexdigest()
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "benchmark": benchmark,
        "protocol": protocol,
        "compatibility": compatibility,
        "settings": dict(settings or {}),
        "fingerprint": fingerprint,
        "seconds": {name: round(value, 2) for name, value in (seconds or {}).items()},
        "attack_model": None if attack_model is None else dict(attack_model),
        "versions": versions(),
        "samples": {"file": SAMPLES_FILE, "rows": len(samples), "sha256": digest},
        "metrics": [asdict(metric) for metric in values.values()],
    }
    path = folder / RESULT_FILE
    write_json(path, record, strict=True)
    return path


def is_result(content: Any) -> bool:
    """Whether this is the content of an `evaluation.json` of ours."""
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def read_result(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, MetricValue]]:
    """The record of an `evaluation.json` and its aggregates by name.

    Raises:
        ValueError: if it is another kind of file, of a later format, or damaged.
    """
    content = read_json(Path(path))
    if not is_result(content):
        raise ValueError(f"{path} is no result file of unlearn_hf (no format {FORMAT!r} in it).")
    version_found = content.get("format_version", FORMAT_VERSION)
    if isinstance(version_found, int) and version_found > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version_found}, this unlearn_hf reads up to {FORMAT_VERSION}. "
            "Update unlearn_hf."
        )
    try:
        _check_record(content)
        metrics = [
            MetricValue.from_dict(mapping(metric, f"metrics[{index}]"))
            for index, metric in enumerate(content["metrics"])
        ]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error} Evaluate again.") from error
    return content, {metric.name: metric for metric in metrics}


def _check_record(content: Mapping[str, Any]) -> None:
    """Raise a `ValueError` that names the first field which is absent or cannot be."""
    if absent := [name for name in _FIELDS if name not in content]:
        raise ValueError(f"it lacks {', '.join(absent)}.")
    for name, choices in _FIELDS.items():
        if choices is not None:
            check_choice(name, content[name], choices)
    for name, kind in (("benchmark", str), ("metrics", list)):
        if not isinstance(content[name], kind) or content[name] == "":
            raise ValueError(f"{name} is {content[name]!r}, and must be a {'name' if kind is str else 'list'}.")
    if content.get("settings") is not None:
        mapping(content["settings"], "settings")
    samples = mapping(content["samples"], "samples")
    if absent := [name for name in ("file", "sha256") if not isinstance(samples.get(name), str)]:
        raise ValueError(f"samples lacks {absent[0]}.")


def read_result_samples(path: str | os.PathLike[str]) -> pd.DataFrame | None:
    """The per-sample table that belongs to an `evaluation.json`; `None` if it is not there.

    Raises:
        ValueError: if the table beside the file is of another evaluation.
    """
    content, _ = read_result(path)
    record = content["samples"]
    table = Path(path).parent / record["file"]
    if not table.is_file():
        return None
    if hashlib.sha256(table.read_bytes()).hexdigest() != record["sha256"]:
        raise ValueError(f"{table} is not the table that {path} was computed from (its hash differs). Evaluate again.")
    return read_samples(table)


def read_samples(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A `samples.parquet`, with list columns as Python lists, as they were before writing.

    Raises:
        ValueError: if there is no such file, or it is no per-sample table.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}.")
    try:
        table = pd.read_parquet(path)
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError that does not name the file
        raise ValueError(f"{path} is no table that can be read ({error}); is it whole?") from error
    if not {"split", "index"} <= set(table.columns):
        raise ValueError(f"{path} has the columns {list(table.columns)}, and must have split and index.")
    for name in table.columns:
        if not pd.api.types.is_object_dtype(table[name]):
            continue
        values = [entry.tolist() if isinstance(entry, np.ndarray) else entry for entry in table[name]]
        table[name] = pd.Series(values, index=table.index, dtype=object)
    return table
