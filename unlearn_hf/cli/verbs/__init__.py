"""The verbs of the command line, one module each. Their modules are light; what is heavy is imported when they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

# verb: module in this package
VERBS = {"unlearn": "unlearn", "finetune": "finetune", "evaluate": "evaluate", "demo": "demo", "list": "list_all"}


class Verb(Protocol):
    """What the module of a verb offers.

    Attributes:
        SUMMARY: one line.
        EXAMPLES: command lines to begin with.
        ARGUMENTS: dataclasses whose fields it takes, torch-free.
        training_config: for verbs that train, gives the configuration class that the words select (imports torch).
    """

    SUMMARY: str
    EXAMPLES: tuple[str, ...]
    ARGUMENTS: tuple[type, ...]
    training_config: Callable[[Sequence[str]], type] | None

    def run(self, argv: Sequence[str]) -> int:
        """Run with the words after the verb; returns the exit status."""
        ...
