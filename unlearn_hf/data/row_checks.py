"""What is wrong with encoded rows that would train without an error: the same rows to forget and to keep, repeats."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from unlearn_hf.data.columns import COLUMN_SETS

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN = 5


def check_overlap(forget: Any, retain: Any, allowed: bool) -> None:
    """Refuse rows that are to be forgotten and to be kept; with `allowed`, say how many there are.

    Args:
        forget: encoded forget rows.
        retain: encoded retain rows.
        allowed: the option `allow_overlap`.

    Raises:
        ValueError: saying how many rows are in both sets, and which.
    """
    kept = {digest: row for row, digest in reversed(list(enumerate(_digests(retain))))}
    both = [(row, kept[digest]) for row, digest in enumerate(_digests(forget)) if digest in kept]
    if not both:
        return
    pairs = ", ".join(f"{row} and {other}" for row, other in both[:_SHOWN])
    message = (
        f"forget_dataset: {len(both)} of {len(forget)} rows are in retain_dataset too, to the token (forget and "
        f"retain row, from 0: {pairs}{', ...' if len(both) > _SHOWN else ''})"
    )
    if not allowed:
        raise ValueError(f"{message}; take them out of one set, or set allow_overlap.")
    warnings.warn(f"{message}; each pulls both ways.", stacklevel=2)


def check_holdout(holdout: Sequence[Any], forget: Sequence[Any], name: str) -> None:
    """Refuse a holdout set with rows that are to be forgotten: it stands for rows that no model has seen.

    Args:
        holdout: rows with one of the accepted sets of columns; case and spaces do not make a row another one.
        forget: likewise.
        name: of the holdout set, for errors.

    Raises:
        ValueError: saying how many rows are in both sets, and which comes first.
    """
    there = set(row_fingerprints(forget))
    found = enumerate(row_fingerprints(holdout))
    both = [row for row, each in found if each in there and any(str(value).strip() for value in holdout[row].values())]
    if both:
        raise ValueError(
            f"{name}: {len(both)} of {len(holdout)} holdout rows are to be forgotten too, the first is row {both[0]} "
            "(from 0); membership measured against them would say nothing. Take them out of one of the two sets."
        )


def row_fingerprints(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A hash of the content of each row; case, spaces and the names of the columns do not make a row another one.

    Args:
        rows: with one of the accepted sets of columns. Of others, such as encoded ones, everything counts.
    """
    found = []
    for row in rows:
        columns = next((each for each in COLUMN_SETS if set(each) <= set(row)), tuple(sorted(row)))
        values: list[Any] = [row[column] for column in columns]
        if columns == ("messages",) and [turn["role"] for turn in row["messages"]] == ["user", "assistant"]:
            values = [turn["content"] for turn in row["messages"]]  # a question and an answer
        plain = json.dumps([" ".join(str(value).split()).casefold() for value in values])
        found.append(hashlib.blake2b(plain.encode(), digest_size=16).hexdigest())
    return found


def warn_of_repeats(rows: Any, name: str) -> None:
    """Warn when encoded rows come more than once: each time counts, so they weigh more than the others."""
    first: dict[bytes, int] = {}
    repeats = [
        (row, first[digest]) for row, digest in enumerate(_digests(rows)) if first.setdefault(digest, row) != row
    ]
    if repeats:
        pairs = ", ".join(f"{row} is {other} again" for row, other in repeats[:_SHOWN])
        warnings.warn(
            f"{name}: {len(repeats)} of {len(rows)} rows come more than once, to the token (from 0: {pairs}"
            f"{', ...' if len(repeats) > _SHOWN else ''}); they weigh more than the others. Leave them out, unless "
            "that is meant.",
            stacklevel=2,
        )


def _digests(rows: Any) -> Iterable[bytes]:
    """A hash of the token ids of each row."""
    for ids in rows["input_ids"]:
        yield hashlib.blake2b(repr(list(ids)).encode(), digest_size=16).digest()
