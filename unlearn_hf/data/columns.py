"""The columns that rows of one's own may have."""

from __future__ import annotations

from collections.abc import Sequence

COLUMN_SETS = (("question", "answer"), ("prompt", "completion"), ("messages",), ("text",))


def accepted_columns() -> str:
    """The accepted sets of columns, in words."""
    return "; ".join(" and ".join(columns) for columns in COLUMN_SETS)


def detect_columns(column_names: Sequence[str], name: str = "dataset") -> tuple[str, ...]:
    """Find which of the accepted sets of columns a dataset has (the first of `COLUMN_SETS` that fits).

    Raises:
        ValueError: naming the columns found and those accepted.
    """
    for columns in COLUMN_SETS:
        if set(columns) <= set(column_names):
            return columns
    raise ValueError(
        f"{name}: columns {', '.join(column_names) or 'none'} do not fit; accepted are {accepted_columns()}."
    )
