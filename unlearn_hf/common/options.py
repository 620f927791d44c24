"""Options of configurations and of the command line, declared with what they may be, and checked by that."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, field, fields
from typing import Any, TypeVar

from unlearn_hf.common.checks import check_choice, check_finite, check_not_negative, check_positive

Value = TypeVar("Value")
_RANGES = {"positive": check_positive, "not negative": check_not_negative, "finite": check_finite}


class Help(str):
    """What `--help` says about a field, and notes for this library alone.

    They are not entries of `metadata` themselves, because `transformers.HfArgumentParser` hands those to argparse.

    Args:
        text: what is said; without percent signs, which argparse takes for formats.
        notes: by their names.
    """

    notes: dict[str, Any]

    def __new__(cls, text: str, **notes: Any) -> Help:
        """A string with attributes."""
        made = super().__new__(cls, text)
        made.notes = notes
        return made


def note(item: Field[Any], name: str) -> Any:
    """A note on a field, `None` where it has none of that name."""
    return getattr(item.metadata.get("help"), "notes", {}).get(name)


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
    metadata: dict[str, Any] = {"help": Help(help, only=only) if isinstance(help, str) else help}
    if choices is not None:
        metadata["choices"] = choices
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
        if value is None and note(item, "only"):
            raise ValueError(f"{item.name}: None is no number; give one, or leave it out.")
        if (choices := item.metadata.get("choices")) is not None:
            check_choice(item.name, value, choices)
        if only := note(item, "only"):
            for kind in only.split(" and "):
                _RANGES[kind](item.name, value)
