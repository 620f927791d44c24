"""The verbs of the command line, one file each. Their modules are light; what is heavy is imported when they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unlearn_hf.common.registry import Registry


@dataclass(frozen=True)
class Verb:
    """A verb.

    Attributes:
        run: called with the words after the verb; returns the exit status.
        summary: one line.
        examples: command lines to begin with.
        arguments: dataclasses whose fields it takes, torch-free; without them it takes plain words.
        words: what stands before the options, as the help shows it.
        training_config: for verbs that train, gives the configuration class that the words select (imports torch).
    """

    run: Callable[[Sequence[str]], int]
    summary: str
    examples: tuple[str, ...] = ()
    arguments: tuple[type, ...] = ()
    words: str = ""
    training_config: Callable[[Sequence[str]], type] | None = None


VERBS: Registry[Verb] = Registry(
    "verb",
    {
        "unlearn": "unlearn_hf.cli.verbs.unlearn:VERB",
        "finetune": "unlearn_hf.cli.verbs.finetune:VERB",
        "retrain": "unlearn_hf.cli.verbs.retrain:VERB",
        "evaluate": "unlearn_hf.cli.verbs.evaluate:VERB",
        "sweep": "unlearn_hf.cli.verbs.sweep:VERB",
        "audit": "unlearn_hf.cli.verbs.audit:VERB",
        "ask": "unlearn_hf.cli.verbs.ask:VERB",
        "report": "unlearn_hf.cli.verbs.report:VERB",
        "demo": "unlearn_hf.cli.verbs.demo:VERB",
        "merge": "unlearn_hf.cli.verbs.merge:VERB",
        "list": "unlearn_hf.cli.verbs.list:VERB",
    },
)
