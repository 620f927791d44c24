"""The values in logs: numbers that can be, objects and row numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Bounds = tuple[float, float]
MEAN_NLL: Bounds = (0.0, math.inf)
"""What a mean token NLL lies between; it is finite."""
SHARE: Bounds = (0.0, 1.0)
"""What a probability or ROUGE lies between."""

_ROUNDING = 1e-6  # likelihoods in float32 may be this far above 1


def number(value: Any, where: str, bounds: Bounds | None = None) -> float:
    """A number of a log as float; `null` becomes NaN, which marks it as missing.

    Args:
        value: as parsed.
        where: for errors.
        bounds: lowest and highest possible value; with them it must be finite.

    Raises:
        ValueError: if it is NaN (a diverged model; nothing can be computed from it), no number, or impossible.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where} is {value!r}, and must be a number or null.")
    if math.isnan(value):
        raise ValueError(f"{where} is NaN: the logged model diverged, or the row has no answer token. Drop that row.")
    low, high = bounds or (-math.inf, math.inf)
    if bounds is not None and not (math.isfinite(value) and low - _ROUNDING <= value <= high + _ROUNDING):
        limits = f"at least {low:g}" + (f" and at most {high:g}" if math.isfinite(high) else "")
        raise ValueError(
            f"{where} is {float(value)!r}, and must be finite, {limits}: the log was edited, or is of something else."
        )
    return float(value)


def numbers(value: Any, where: str, bounds: Bounds | None = None) -> list[float] | None:
    """A list of numbers (one number counts as a list of one); `None` if it, or an entry, is `null`.

    Args:
        value: as parsed.
        where: for errors.
        bounds: see `number`.

    Raises:
        ValueError: if an entry is NaN, no number or impossible, or the list is empty.
    """
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise ValueError(f"{where} is empty, and must hold at least one number.")
    parsed = [number(entry, where, bounds) for entry in entries]
    return None if any(math.isnan(entry) for entry in parsed) else parsed


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """An object of a log.

    Raises:
        ValueError: if it is something else.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is {value!r}, and must be an object {{name: value, ...}}.")
    return value


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
