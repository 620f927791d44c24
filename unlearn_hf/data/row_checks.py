"""What is wrong with encoded rows that would train without an error: the same rows to forget and to keep, repeats."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from typing import Any

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
