"""Reading JSON logs, plain or gzipped, and the numbers in them."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from pathlib import Path
from typing import Any

_GZIP_MAGIC = b"\x1f\x8b"


def read_json(path: Path) -> Any:
    """The content of a JSON file; gzip is recognised by its first bytes, not by the name.

    Raises:
        ValueError: if there is no such file, or it is no JSON.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    data = path.read_bytes()
    try:
        if data[:2] == _GZIP_MAGIC:
            data = gzip.decompress(data)
        return json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is no JSON file ({error}); expected an evaluation log, plain or gzipped.") from error


def number(value: Any, where: str) -> float:
    """A number of a log as float; `null` becomes NaN, which marks it as missing.

    Raises:
        ValueError: if it is NaN (a diverged model; nothing can be computed from it) or no number.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where} is {value!r}, and must be a number or null.")
    if math.isnan(value):
        raise ValueError(f"{where} is NaN: the logged model diverged, or the row has no answer token. Drop that row.")
    return float(value)


def numbers(value: Any, where: str) -> list[float] | None:
    """A list of numbers (one number counts as a list of one); `None` if it, or an entry, is `null`.

    Raises:
        ValueError: if an entry is NaN or no number, or the list is empty.
    """
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise ValueError(f"{where} is empty, and must hold at least one number.")
    parsed = [number(entry, where) for entry in entries]
    return None if any(math.isnan(entry) for entry in parsed) else parsed


def row_index(key: str, where: str) -> int:
    """A row number that JSON stores as a string key.

    Raises:
        ValueError: if it is no integer.
    """
    try:
        return int(key)
    except ValueError:
        raise ValueError(
            f"{where} has the row key {key!r}; row keys are integers, as in {{'0': ..., '1': ...}}."
        ) from None
