"""Methods, objectives and the names of all options, to tell a wrong name from one that belongs elsewhere.

As long as nothing has imported the methods, their source files are asked (`declared`), which takes no torch. A
process that has imported them may have registered its own, so there the registries themselves are asked.
"""

from __future__ import annotations

import sys
from typing import Any

from unlearn_hf.cli import declared
from unlearn_hf.cli.parsing import RENAMED, field_names
from unlearn_hf.cli.verbs import VERBS


def methods() -> dict[str, declared.DeclaredMethod]:
    """The methods by name."""
    loaded = sys.modules.get("unlearn_hf.methods")
    if loaded is None:
        return declared.methods()
    return {
        name: declared.DeclaredMethod(
            (trainer.__doc__ or "").strip().partition("\n")[0], trainer.paper, "", trainer.uses_retain_rows
        )
        for name, trainer in loaded.METHODS.items()
    }


def training_fields(method: str | None = None) -> type:
    """A dataclass with the training options of a method, or of every verb that trains."""
    loaded = sys.modules.get("unlearn_hf.methods")
    if loaded is None:
        return declared.stand_in("FinetuningConfig" if method is None else declared.methods()[method].config)
    from unlearn_hf.training.finetuning_config import FinetuningConfig

    return FinetuningConfig if method is None else configuration_of(method)


def configuration_of(method: str) -> Any:
    """The configuration class of a method, with the options of all objectives (imports torch)."""
    from unlearn_hf.methods import METHODS
    from unlearn_hf.training.objective_options import with_objective_options

    return with_objective_options(METHODS[method].config_class)


def all_fields() -> set[str]:
    """Names of the options of every verb and method, old names among them."""
    arguments = [each for verb in VERBS.values() for each in verb.arguments]
    return {*field_names([*arguments, training_fields(), *map(training_fields, methods())]), *RENAMED}


def method_fields(besides: str | None = None) -> dict[str, str]:
    """Options that only some methods have (and `besides` has not), with a sentence that says which."""
    fields = {method: field_names([training_fields(method)]) for method in methods()}
    shared = set.intersection(*map(set, fields.values()))
    taken = set(fields[besides]) if besides is not None else set()
    owners: dict[str, list[str]] = {}
    for method, names in fields.items():
        for name in names:
            if name not in shared | taken:
                owners.setdefault(name, []).append(method)
    subject = f"method {besides} has no such option" if besides else "it belongs to a method"
    return {name: f"{subject}; {' or '.join(found)} has" for name, found in owners.items()}
