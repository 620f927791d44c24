"""Warnings on the command line: ours as a sentence, and those of other libraries that no user can mend not at all."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from unlearn_hf.common.terminal import wrapped

_PACKAGE = str(Path(__file__).parents[1])


@dataclass(frozen=True)
class Quiet:
    """A message that is not shown.

    Attributes:
        text: how it begins.
        reason: why nobody needs it.
        category: of the warning, or
        logger: the name of the logger that writes it.
    """

    text: str
    reason: str
    category: type[Warning] | None = None
    logger: str | None = None


QUIET = (
    Quiet(
        "`is_gradient_checkpointing` is deprecated",
        "peft 0.21 reads this old name of transformers 5.23",
        category=FutureWarning,
    ),
    Quiet(
        "Failed to load CPU gemm_4bit_forward",
        "an optional kernel for 4-bit inference on CPUs, which nothing here uses",
        logger="bitsandbytes.backends.cpu.ops",
    ),
)


@contextmanager
def readable_warnings() -> Iterator[None]:
    """Within the context, warnings of this package are sentences, and those in `QUIET` are not shown."""
    shown = warnings.formatwarning

    def formatted(message: Warning | str, category: type[Warning], filename: str, *rest: object) -> str:
        if filename.startswith(_PACKAGE):
            return wrapped(f"warning: {message}", stream=sys.stderr) + "\n"
        return shown(message, category, filename, *rest)  # type: ignore[arg-type]

    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.formatwarning = formatted  # type: ignore[assignment]
        stack.callback(setattr, warnings, "formatwarning", shown)
        for quiet in QUIET:
            if quiet.category is not None:
                warnings.filterwarnings("ignore", re.escape(quiet.text), quiet.category)
            if quiet.logger is not None:
                logger, drop = logging.getLogger(quiet.logger), _without(quiet.text)
                logger.addFilter(drop)
                stack.callback(logger.removeFilter, drop)
        yield


def _without(text: str) -> Callable[[logging.LogRecord], bool]:
    """A filter that leaves out what begins with a text."""
    return lambda record: not record.getMessage().startswith(text)
