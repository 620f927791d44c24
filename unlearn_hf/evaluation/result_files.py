"""Our own result files: `evaluation.json` with the aggregates and `samples.parquet` with the values per sample.

The JSON file names everything that a number depends on, and holds a hash of the table, so that a table of another
evaluation is never read in its place. Both round-trip bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlearn_hf.evaluation.json_files import read_json
from unlearn_hf.evaluation.values import MetricValue

FORMAT = "unlearn_hf.evaluation"
FORMAT_VERSION = 1
RESULT_FILE, SAMPLES_FILE = "evaluation.json", "samples.parquet"
_PACKAGES = ("unlearn_hf", "torch", "transformers", "numpy", "scipy", "scikit-learn", "pandas", "rouge_score")


def library_versions() -> dict[str, str]:
    """Versions of Python and of the packages that the numbers depend on, as installed (nothing is imported)."""
    return {"python": platform.python_version(), **{package: _version(package) for package in _PACKAGES}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def write_results(
    folder: str | os.PathLike[str],
    values: Mapping[str, MetricValue] | Iterable[MetricValue],
    samples: pd.DataFrame,
    *,
    benchmark: str,
    protocol: str = "all",
    compatibility: str | None = None,
    settings: Mapping[str, Any] | None = None,
    fingerprint: str | None = None,
    seconds: Mapping[str, float] | None = None,
) -> Path:
    """Write `evaluation.json` and `samples.parquet` into a folder, replacing older ones.

    Args:
        folder: made if absent.
        values: aggregates.
        samples: per-sample table; columns of lists are kept as lists.
        benchmark: `"tofu"` or `"muse"`.
        protocol: protocol that the values were computed by (the table may hold more rows).
        compatibility: the compatibility that they were computed with.
        settings: what else they depend on; JSON-ready. For MUSE, `"corpus"`.
        fingerprint: hash of the evaluated data.
        seconds: how long each pass took.

    Returns:
        The path of `evaluation.json`.

    Raises:
        ValueError: if a value is not finite, which JSON cannot hold.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = list(values.values() if isinstance(values, Mapping) else values)
    if infinite := [metric.name for metric in metrics if not np.isfinite(metric.value)]:
        raise ValueError(f"the values of {infinite} are not finite and cannot be written to JSON.")
    temporary = folder / f".{SAMPLES_FILE}.tmp"
    samples.to_parquet(temporary, index=False)
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    temporary.replace(folder / SAMPLES_FILE)
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "benchmark": benchmark,
        "protocol": protocol,
        "compatibility": compatibility,
        "settings": dict(settings or {}),
        "fingerprint": fingerprint,
        "seconds": {name: round(value, 2) for name, value in (seconds or {}).items()},
        "versions": library_versions(),
        "samples": {"file": SAMPLES_FILE, "rows": len(samples), "sha256": digest},
        "metrics": [metric.to_dict() for metric in metrics],
    }
    path = folder / RESULT_FILE
    temporary = folder / f".{RESULT_FILE}.tmp"
    temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def is_result(content: Any) -> bool:
    """Whether this is the content of an `evaluation.json` of ours."""
    return isinstance(content, Mapping) and content.get("format") == FORMAT


def read_result(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, MetricValue]]:
    """The record of an `evaluation.json` and its aggregates by name.

    Raises:
        ValueError: if it is another kind of file, or of a later format.
    """
    content = read_json(Path(path))
    if not is_result(content):
        raise ValueError(f"{path} is no result file of unlearn_hf (no format {FORMAT!r} in it).")
    if content["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {content['format_version']}, this unlearn_hf reads up to {FORMAT_VERSION}. "
            "Update unlearn_hf."
        )
    metrics = [MetricValue.from_dict(metric) for metric in content["metrics"]]
    return content, {metric.name: metric for metric in metrics}


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
        ValueError: if it is no per-sample table.
    """
    table = pd.read_parquet(path)
    if not {"split", "index"} <= set(table.columns):
        raise ValueError(f"{path} has the columns {list(table.columns)}, and must have split and index.")
    for name in table.columns:
        if not pd.api.types.is_object_dtype(table[name]):
            continue
        values = [entry.tolist() if isinstance(entry, np.ndarray) else entry for entry in table[name]]
        table[name] = pd.Series(values, index=table.index, dtype=object)
    return table
