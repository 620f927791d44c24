"""Garbage collection waits for imports: a seventh of the start of a small run goes into searching what they made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_ours = False
"""Whether what is left out of collections was left out here."""


@contextmanager
def collecting_as_before() -> Iterator[None]:
    """Within the context collection may be put off; afterwards it is as it was."""
    global _ours
    enabled = gc.isenabled()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        if _ours:
            gc.unfreeze()
            _ours = False


def collect_later() -> None:
    """No collections until `collect_again`."""
    gc.disable()


def collect_again() -> None:
    """Collections begin, and leave out what there is by now: modules, which stay anyway."""
    global _ours
    if not gc.isenabled():
        if gc.get_freeze_count() == 0:
            gc.freeze()
            _ours = True
        gc.enable()
