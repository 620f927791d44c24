"""Files: written whole or not at all, read plain or gzipped."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_GZIP_MAGIC = b"\x1f\x8b"


@cache
def code_digest(package: Path = Path(__file__).parents[1]) -> str:
    """SHA-256 over the files of a package, this one by default: what a version does not tell of a checkout."""
    digest = hashlib.sha256()
    for file in sorted(each for pattern in ("*.py", "*.txt") for each in package.rglob(pattern)):
        digest.update(f"{file.relative_to(package).as_posix()} ".encode() + file.read_bytes())
    return digest.hexdigest()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` once the block has ended well, and is removed otherwise.

    It ends as `path` does, because libraries choose a format by that. Folders above are made. A pipe or a device is
    handed out itself: it is written to, never replaced.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))  # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file that is either whole or not there."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, strict: bool = False) -> None:
    """Write a JSON file that is either whole or not there.

    Args:
        path: where; its folder is made if absent.
        content: what is written.
        strict: refuse NaN, infinity and what JSON has no form for, instead of writing names and texts for them.

    Raises:
        ValueError: for a number that is not finite, where that is refused.
        TypeError: for an object that is no JSON, likewise.
    """
    write_text(path, json.dumps(content, indent=1, default=None if strict else str, allow_nan=not strict) + "\n")


def drop_lines_beyond(path: Path, step: int) -> None:
    """Leave out the JSON lines of later steps than `step`, at which a run begins or goes on; no file is no lines."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if lines:
        write_text(path, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step))


def read_unzipped(path: Path) -> bytes:
    """The content of a file; gzip is recognised by its first bytes, not by the name.

    Raises:
        ValueError: if there is no such file, or its gzip is broken.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    data = path.read_bytes()
    if data[:2] != _GZIP_MAGIC:
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: the gzip file is broken ({error}); copy or make it again.") from error


def read_text(path: Path) -> str:
    """The content of a UTF-8 file, gzipped or not.

    Raises:
        ValueError: when the file is not there, or is not text.
    """
    try:
        return read_unzipped(path).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ValueError(f"{path}: byte {problem.start} is not UTF-8; save the file as UTF-8.") from problem


def read_json(path: Path) -> Any:
    """The content of a JSON file, gzipped or not.

    Raises:
        ValueError: if there is no such file, or it is no JSON.
    """
    try:
        return json.loads(read_unzipped(path))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no JSON file ({error}).") from error


def read_json_lines(path: Path) -> list[tuple[int, Any]]:
    """Read JSON lines, or one JSON array, gzipped or not.

    Returns:
        Line number (in an array: number of the entry), counted from 1, and value. Empty lines are left out.

    Raises:
        ValueError: naming file and line of what is not JSON.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        try:
            return list(enumerate(json.loads(text), start=1))
        except json.JSONDecodeError as problem:
            raise ValueError(f"{path}, line {problem.lineno}: not a JSON array ({problem.msg}).") from problem
        except RecursionError:
            raise ValueError(f"{path}: the array is nested too deeply; rows are flat objects.") from None
    values = []
    # Not splitlines(): it also splits at characters that JSON allows inside strings (U+2028, say).
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values.append((number, json.loads(line)))
            except json.JSONDecodeError as problem:
                raise ValueError(f"{path}, line {number}: not JSON ({problem.msg}); one object per line.") from problem
            except RecursionError:
                raise ValueError(f"{path}, line {number}: it is nested too deeply; rows are flat objects.") from None
    return values


def read_objects(path: Path) -> list[dict[str, Any]]:
    """Read rows that must be JSON objects.

    Raises:
        ValueError: naming file and line of what is not an object, and files without rows.
    """
    values = read_json_lines(path)
    if not values:
        raise ValueError(f"{path}: there are no rows in it.")
    for number, value in values:
        if not isinstance(value, dict):
            raise ValueError(f"{path}, line {number}: an object is expected, not {type(value).__name__}.")
    return [value for _, value in values]
