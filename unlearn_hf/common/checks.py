"""Checks of single values, with errors that name the field, the value and the mend."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from numbers import Integral
from typing import Any

FORGET_TOKENS = ("answer", "new_words")
ATTENTIONS = ("sdpa", "eager", "flex_attention", "flash_attention_2")
GENERATION_BACKENDS = ("auto", "slots", "transformers", "transformers_continuous", "vllm")
MODEL_DTYPES = ("float32", "bfloat16", "float16", "auto")
TRAINABLE_DTYPES = ("float32", "bfloat16")


def problems_of(check: Callable[..., Any], *arguments: Any) -> list[str]:
    """What a check refuses, to be told together with what others do; nothing where it passes."""
    try:
        check(*arguments)
    except (ValueError, ImportError) as problem:
        return [str(problem)]
    return []


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise a `ValueError` naming the field, the value and the choices unless `value` is one of them."""
    if value not in list(choices):  # which a view of a registry cannot tell of what has no hash
        raise ValueError(f"{name}: {value!r} is not known; choose one of {', '.join(map(str, choices))}.")


def check_positive(name: str, value: float | None) -> None:
    """Raise a `ValueError` unless `value` is positive (or `None`)."""
    if value is not None and not value > 0:
        raise ValueError(f"{name}: {value} is not positive; give a number above zero.")


def check_not_negative(name: str, value: float | None) -> None:
    """Raise a `ValueError` unless `value` is zero or more (or `None`)."""
    if value is not None and not value >= 0:
        raise ValueError(f"{name}: {value} is negative; give zero or more.")


def check_finite(name: str, value: float | None) -> None:
    """Raise a `ValueError` for infinity, and for what is no number."""
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{name}: {value} is not finite; give a number.")


def check_device(name: str, value: str | None) -> None:
    """Raise a `ValueError` unless torch knows a device of that name."""
    import torch  # only here: the command line checks other values without it

    try:
        torch.device(value or "cpu")
    except RuntimeError:
        raise ValueError(f"{name}: {value!r} is no device; give one like 'cpu' or 'cuda:1'.") from None


def check_count(name: str, value: int | None) -> None:
    """Raise a `ValueError` unless `value` is a whole number above zero, or `None`."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
        raise ValueError(f"{name}: {value!r} is no whole number above zero; give 1 or more.")
