"""One's own data: a file of what is to be forgotten and a file of what is to be kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_hf.common.files import read_json_lines
from unlearn_hf.data.columns import accepted_columns, detect_columns

if TYPE_CHECKING:
    from datasets import Dataset

_MAY_BE_EMPTY = ("prompt", "question")
_ROLES = ("system", "user", "assistant", "tool")


def load_pairs(forget_file: str | Path, retain_file: str | Path) -> dict[str, Dataset]:
    """Load forget and retain rows from JSON lines (or a JSON array), gzipped or not.

    Rows have the columns `question` and `answer`, `prompt` and `completion`, `messages` (role and content; the last
    turn is the answer), or `text`; the two files may differ. Other columns of text that every row has are kept (for
    alternative answers); what else there is is ignored.

    Args:
        forget_file: rows to forget.
        retain_file: rows to keep.

    Returns:
        `{"forget": dataset, "retain": dataset}`.

    Raises:
        ValueError: naming file, line, and the columns that were found and those that are accepted.
    """
    files = {"forget": forget_file, "retain": retain_file}
    rows = {name: read_rows(file, f"{name}_file") for name, file in files.items()}
    from datasets import Dataset

    return {name: Dataset.from_list(each) for name, each in rows.items()}


def load_rows(file: str | Path, name: str = "file") -> Dataset:
    """Load one such file; see `read_rows`."""
    rows = read_rows(file, name)
    from datasets import Dataset  # only here: what is wrong with a file is told without it

    return Dataset.from_list(rows)


def read_rows(file: str | Path, name: str = "file") -> list[dict[str, Any]]:
    """Read one such file.

    Args:
        file: JSON lines or a JSON array, gzipped or not.
        name: for errors.

    Raises:
        ValueError: naming file, line and column.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"{name}: {str(file)!r} is not there; give the path of a JSON-lines file.")
    values = read_json_lines(path)
    if not values:
        raise ValueError(f"{name}: {path} has no rows.")
    columns: tuple[str, ...] = ()
    rows = []
    for number, row in values:
        place = f"{name}: {path}, line {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{place}: an object with columns is expected, not {type(row).__name__}.")
        columns = columns or detect_columns(list(row), place)
        missing = [column for column in columns if column not in row]
        if missing:
            raise ValueError(
                f"{place}: no column {missing[0]!r}, which the rows before have; found {', '.join(row) or 'none'}. "
                f"Every row needs the same of {accepted_columns()}."
            )
        for column in columns:
            _check(row[column], column, place)
        rows.append(row)
    kept = [name for name in rows[0] if name in columns or all(isinstance(row.get(name), str) for row in rows)]
    return [{name: row[name] for name in kept} for row in rows]


def _check(value: Any, column: str, place: str) -> None:
    """Refuse values that are not text, or hold nothing to learn."""
    if column == "messages":
        if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
            raise ValueError(f"{place}, column messages: a list of objects with role and content is expected.")
        for turn in value:
            for key in ("role", "content"):
                if not isinstance(turn.get(key), str):
                    raise ValueError(f"{place}, column messages: a turn has no {key!r} that is text.")
                _check_unicode(turn[key], "messages", place)
            if turn["role"] not in _ROLES:
                raise ValueError(
                    f"{place}, column messages: the role {turn['role']!r} is none of {', '.join(_ROLES)}."
                )
        if len(value) < 2 or value[-1]["role"] != "assistant":
            raise ValueError(
                f"{place}, column messages: the last turn must be the assistant's, after at least one other."
            )
        value, column = value[-1]["content"], "messages (last turn)"
    if not isinstance(value, str):
        raise ValueError(f"{place}, column {column}: text is expected, not {type(value).__name__}.")
    _check_unicode(value, column, place)
    if not value.strip() and column not in _MAY_BE_EMPTY:
        raise ValueError(f"{place}, column {column}: it is empty, so there is nothing to learn; leave the row out.")


def _check_unicode(text: str, column: str, place: str) -> None:
    """Refuse half of a surrogate pair, which JSON can write and no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise ValueError(
            f"{place}, column {column}: character {problem.start} ({text[problem.start]!a}) is half of a surrogate "
            "pair, which is no text; write the file again as UTF-8."
        ) from None
