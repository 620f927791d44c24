"""Options of a configuration, declared with what they may be, and checked by that."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from unlearn_hf.common.checks import check_choice, check_not_negative, check_positive

_RANGES = {"positive": check_positive, "not negative": check_not_negative}


def option(default: Any, help: str, choices: Collection[str] | None = None, only: str | None = None) -> Any:
    """A field of a configuration dataclass.

    Args:
        default: its default; where that is `None`, no other limit holds for `None`.
        help: what `--help` says of it.
        choices: the values it may have; a view of a registry stays one, so that later entries count.
        only: `"positive"` or `"not negative"`, for numbers.
    """
    limits = {"choices": choices, "only": only}
    return dataclasses.field(default=default, metadata={"help": help} | {name: v for name, v in limits.items() if v})


def check_options(config: Any) -> None:
    """Check every field of a configuration that was declared by `option`.

    Raises:
        ValueError: naming the field, the value and what it may be.
    """
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if value is None and item.default is None:
            continue
        if (choices := item.metadata.get("choices")) is not None:
            check_choice(item.name, value, choices)
        if (only := item.metadata.get("only")) is not None:
            _RANGES[only](item.name, value)
