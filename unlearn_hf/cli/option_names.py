"""Names of all options, to tell a wrong name from one that belongs elsewhere (imports torch)."""

from __future__ import annotations

from collections.abc import Collection

from unlearn_hf.cli.parsing import RENAMED, field_names
from unlearn_hf.cli.verbs import VERBS
from unlearn_hf.methods import METHODS
from unlearn_hf.training.config import FinetuningConfig, UnlearningConfig


def all_fields() -> set[str]:
    """Names of the options of every verb and method, old names among them."""
    arguments = [each for verb in VERBS.values() for each in verb.arguments]
    methods = [trainer.config_class for trainer in METHODS.values()]
    return {*field_names([*arguments, FinetuningConfig, *methods]), *RENAMED}


def method_fields(besides: str | None = None) -> dict[str, str]:
    """Options that only some methods have (and `besides` has not), with a sentence that says which."""
    owners: dict[str, list[str]] = {}
    shared = set(field_names([UnlearningConfig]))
    taken = set(field_names([METHODS[besides].config_class])) if besides is not None else set()
    for method, trainer in METHODS.items():
        for name in field_names([trainer.config_class]):
            if name not in shared | taken:
                owners.setdefault(name, []).append(method)
    subject = f"method {besides} has no such option" if besides else "it belongs to a method"
    return {name: f"{subject}; {_join(methods)} has" for name, methods in owners.items()}


def _join(names: Collection[str]) -> str:
    return " or ".join(names)
