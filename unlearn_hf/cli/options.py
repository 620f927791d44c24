"""One option of the command line, as a field of a dataclass declares it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, field
from typing import Any, TypeVar

Value = TypeVar("Value")


def option(default: Value, help: str | Callable[[], str], choices: Collection[str] | None = None) -> Value:
    """A field with what `--help` says about it.

    Args:
        default: its default; of a list every instance gets its own.
        help: one or two sentences; a function where they follow from registries.
        choices: the values that it takes, where they are few.
    """
    metadata = {"help": help} if choices is None else {"help": help, "choices": choices}
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
