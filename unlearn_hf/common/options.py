"""Options of configurations and of the command line, declared with what they may be, and checked by that."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar

from unlearn_hf.common.checks import check_choice, check_finite, check_not_negative, check_positive

Value = TypeVar("Value")
_RANGES = {"positive": check_positive, "not negative": check_not_negative, "finite": check_finite}


def option(
    default: Value,
    help: str | Callable[[], str],
    choices: Collection[str] | None = None,
    only: str | None = None,
) -> Value:
    """A field of a dataclass, with what `--help` says about it and what `check_options` holds it to.

    Args:
        default: its default; of a list every instance gets its own. Where it is `None`, no limit holds for `None`.
        help: one or two sentences; a function where they follow from registries.
        choices: the values that it takes, where they are few; a view of a registry stays one, so that what is
            registered later counts.
        only: for numbers `"positive"`, `"not negative"` or `"finite"`, or two of them joined by `" and "`.
    """
    limits = {"choices": choices, "only": only}
    metadata = {"help": help} | {name: limit for name, limit in limits.items() if limit is not None}
    named: dict[str, Any] = {"default": default}
    if isinstance(default, list):
        named = {"default_factory": lambda: copy.copy(default)}
    found: Value = field(**named, metadata=metadata)
    return found


def default_of(item: Field[Any]) -> Any:
    """The default of a field, `None` where it has none."""
    if item.default_factory is not MISSING:
        return item.default_factory()
    return None if item.default is MISSING else item.default


def check_options(config: Any) -> None:
    """Check every field of a configuration by the limits that it was declared with.

    Raises:
        ValueError: naming the field, the value and what it may be.
    """
    for item in fields(config):
        value = getattr(config, item.name)
        if value is None and item.default is None:
            continue
        if (choices := item.metadata.get("choices")) is not None:
            check_choice(item.name, value, choices)
        for only in item.metadata.get("only", "").split(" and ") if "only" in item.metadata else ():
            _RANGES[only](item.name, value)
