"""Rows from JSON files, with errors that name the file and the line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any


def open_text(path: Path) -> str:
    """Read a UTF-8 text file, gzipped or not.

    Raises:
        ValueError: when the file is not there, or is not text.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    data = path.read_bytes()
    try:
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ValueError(f"{path}: byte {problem.start} is not UTF-8; save the file as UTF-8.") from problem


def read_json(path: Path) -> list[tuple[int, Any]]:
    """Read JSON lines, or one JSON array, gzipped or not.

    Returns:
        Line number (in an array: number of the entry), counted from 1, and value. Empty lines are left out.

    Raises:
        ValueError: naming file and line of what is not JSON.
    """
    text = open_text(path)
    if text.lstrip().startswith("["):
        try:
            return list(enumerate(json.loads(text), start=1))
        except json.JSONDecodeError as problem:
            raise ValueError(f"{path}, line {problem.lineno}: not a JSON array ({problem.msg}).") from problem
    values = []
    # Not splitlines(): it also splits at characters that JSON allows inside strings (U+2028, say).
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values.append((number, json.loads(line)))
            except json.JSONDecodeError as problem:
                raise ValueError(f"{path}, line {number}: not JSON ({problem.msg}); one object per line.") from problem
    return values


def read_objects(path: Path) -> list[dict[str, Any]]:
    """Read rows that must be JSON objects.

    Raises:
        ValueError: naming file and line of what is not an object, and files without rows.
    """
    values = read_json(path)
    if not values:
        raise ValueError(f"{path}: there are no rows in it.")
    for number, value in values:
        if not isinstance(value, dict):
            raise ValueError(f"{path}, line {number}: an object is expected, not {type(value).__name__}.")
    return [value for _, value in values]
