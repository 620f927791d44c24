"""What loaders of benchmarks share: where files lie, and a dict of datasets that knows where it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


def source_folder(source: str | Path, mini: Path) -> Path | None:
    """The folder that a source stands for, `None` for the hub.

    Args:
        source: `hub`, `mini` or a folder.
        mini: the folder of the data that come along.

    Raises:
        ValueError: for a folder that is not there.
    """
    if source == "hub":
        return None
    folder = mini if source == "mini" else Path(source).expanduser()
    if not folder.is_dir():
        raise ValueError(f"source: {str(source)!r} is not 'hub', 'mini' or a folder of the official files.")
    return folder


def source_label(source: str | Path, revision: str | None) -> str:
    """The name of a source, with the revision where it is the hub's."""
    return f"hub@{revision}" if source == "hub" and revision is not None else str(source)


def rows_file(*places: Path) -> Path | None:
    """The first file that is there, of paths without their ending (`.json` or `.jsonl`, gzipped or not)."""
    candidates = (place.with_name(place.name + ending) for place in places for ending in _ENDINGS)
    return next((path for path in candidates if path.is_file()), None)


def load_from_hub(repository: str, *configuration: str, access: str = "", **options: Any) -> tuple[Any, str]:
    """What `datasets.load_dataset` gives, or nothing and why it is not there (or offline, not in the cache).

    Args:
        repository: of the data set.
        *configuration: its name, where there are several.
        access: what is needed beside a connection, for the error.
        **options: those of `load_dataset`.

    Raises:
        ValueError: where the hub cannot be reached, naming the mend.
    """
    from datasets import load_dataset

    try:
        return load_dataset(repository, *configuration, **options), ""
    except (ConnectionError, FileNotFoundError) as problem:
        raise ValueError(
            f"source: 'hub' could not reach {repository} ({type(problem).__name__}); go online{access}, unset "
            "HF_HUB_OFFLINE, or pass a folder of the official files, or 'mini'."
        ) from problem
    except ValueError as problem:
        return None, str(problem)


def content_fingerprint(rows: Iterable[Any]) -> str:
    """SHA-256 over the content of rows, in their order; the same for a file, the Hub, and a copy in memory."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()


class BenchmarkData(dict[str, Any]):
    """Named datasets (and lists) of a benchmark.

    Asking for a part that is not there raises a ValueError that says why; `in` and `get` ask without raising.

    Attributes:
        split: what is to be forgotten, as named by the benchmark.
        source: where the data came from.
        fingerprints: SHA-256 of the content of each part.
        fingerprint: SHA-256 over all parts.
    """

    def __init__(
        self, parts: Mapping[str, list[Any]], *, split: str, source: str, absent: Mapping[str, str] | None = None
    ) -> None:
        """Take rows (dicts become datasets, anything else stays a list).

        Args:
            parts: rows by name.
            split: what is to be forgotten.
            source: where the data came from.
            absent: for parts that could be there but are not, the reason.
        """
        from datasets import Dataset  # only here: a wrong split is told without it

        super().__init__(
            {
                name: Dataset.from_list(rows) if rows and isinstance(rows[0], dict) else rows
                for name, rows in parts.items()
            }
        )
        self.split = split
        self.source = source
        self.fingerprints = {name: content_fingerprint(rows) for name, rows in parts.items()}
        self.fingerprint = content_fingerprint(sorted(self.fingerprints.items()))
        self._absent = dict(absent or {})

    def __missing__(self, name: str) -> Any:
        reason = self._absent.get(name, f"there is no part of this name; there are {', '.join(self)}.")
        raise ValueError(f"{self.split} from {self.source}, {name!r}: {reason}")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {len(rows)}" for name, rows in self.items())
        return f"{type(self).__name__}(split={self.split!r}, source={self.source!r}, rows={{{sizes}}})"
