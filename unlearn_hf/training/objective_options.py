"""An option of the configuration for every parameter of every objective, found through the registry."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from unlearn_hf.common.options import Help, note
from unlearn_hf.objectives.registry import parameter_options


def with_objective_options(config_class: type) -> type:
    """A configuration class with an option for every parameter of every objective registered so far.

    Options that `config_class` has already stay as they are, so that nothing changes unless objectives were registered
    from outside.

    Raises:
        ValueError: when an objective's parameter has the name of an option of another kind.
    """
    present = {item.name: item for item in dataclasses.fields(config_class)}
    added: list[Any] = []
    for name, option in parameter_options().items():
        if name not in present:
            item = field(default=None, metadata={"help": Help(option.help, objectives=option.owners)})
            added.append((name, option.type | None, item))
        elif note(present[name], "objectives") is None:
            raise ValueError(
                f"objective {option.owners[0]!r}: its parameter {name!r} is an option of {config_class.__name__} "
                "already; name it otherwise."
            )
    if not added:
        return config_class

    about = {"__module__": config_class.__module__, "__doc__": config_class.__doc__, "__reduce_ex__": _reduce}
    return dataclasses.make_dataclass(config_class.__name__, added, bases=(config_class,), namespace=about)


def _reduce(config: Any, protocol: Any) -> Any:
    """Pickle by the class that is found under its name; options that were added to it are among the values."""
    named = next(each for each in type(config).__mro__ if "__reduce_ex__" not in vars(each))
    return object.__new__, (named,), vars(config)


@dataclass
class _NoOptions:
    """Parameters of the objectives."""


ObjectiveOptions: Any = with_objective_options(_NoOptions)
