"""Arguments under their old names, for one version."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def renamed_arguments(**names: str) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Let a function take keyword arguments under old names too, with a warning.

    Args:
        **names: old name = today's name.
    """

    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> _Result:
            for old in names.keys() & kwargs.keys():
                message = f"{old} is now {names[old]}; the old name goes with the next version."
                warnings.warn(message, FutureWarning, stacklevel=2)
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
