"""Objectives by name, and the options that their parameters become; reading them imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, get_type_hints

from unlearn_hf.common.registry import Registry
from unlearn_hf.objectives.base import ALTERNATIVE, Needs, Objective

_HERE = "unlearn_hf.objectives"
FORGET_OBJECTIVES: Registry[Objective] = Registry(
    "forget_objective",
    {
        "ga": f"{_HERE}.gradient_ascent:GRADIENT_ASCENT",
        "npo": f"{_HERE}.npo:NPO",
        "simnpo": f"{_HERE}.simnpo:SIMNPO",
        "dpo": f"{_HERE}.dpo:DPO",
        "idk": f"{_HERE}.idk:IDK",
        "rmu": f"{_HERE}.rmu:RMU",
        "undial": f"{_HERE}.undial:UNDIAL",
        "ceu": f"{_HERE}.ceu:CEU",
        "wga": f"{_HERE}.wga:WGA",
        "satimp": f"{_HERE}.satimp:SATIMP",
        "logit_margin": f"{_HERE}.logit_margin:LOGIT_MARGIN",
        "kl_uniform": f"{_HERE}.kl_uniform:KL_UNIFORM",
    },
)
RETAIN_OBJECTIVES: Registry[Objective] = Registry(
    "retain_objective",
    {
        "nll": f"{_HERE}.retain:NEGATIVE_LOG_LIKELIHOOD",
        "kl": f"{_HERE}.retain:KULLBACK_LEIBLER",
        "hidden": f"{_HERE}.retain:HIDDEN_STATES",
    },
)


def register_objective(objective: Objective, side: Literal["forget", "retain"]) -> Objective:
    """Make an objective known by its name: to configurations, the command line, `list` and help.

    Objectives from outside this package are registered where they are defined, before configurations are made; or
    without a call by an entry point of the group `unlearn_hf.forget_objectives` or `unlearn_hf.retain_objectives`.

    Raises:
        ValueError: for a name that is taken, a parameter that another objective has with another type, or a retain
            objective about alternative answers, which belong to forget rows.
    """
    group = FORGET_OBJECTIVES if side == "forget" else RETAIN_OBJECTIVES
    if side == "retain" and isinstance(objective.needs, Needs) and ALTERNATIVE in objective.needs.answers:
        raise ValueError(f"objective {objective.name!r}: retain rows have no alternative answer.")
    types = get_type_hints(objective.parameters)
    known = parameter_options()
    for name in objective.parameter_names:
        if name in known and known[name].type != types[name]:
            raise ValueError(
                f"objective {objective.name!r}: the parameter {name!r} has another type in {known[name].owners[0]!r}; "
                "name it otherwise."
            )
    group.register(objective.name, objective)
    return objective


@dataclasses.dataclass
class ParameterOption:
    """A parameter of one or more objectives, as an option.

    Attributes:
        type: its type.
        owners: names of the objectives that have it.
        help: what it means to each of them, with its default.
    """

    type: Any
    owners: list[str]
    help: str


def objectives() -> Iterator[Objective]:
    """All objectives of both sides."""
    yield from (*FORGET_OBJECTIVES.values(), *RETAIN_OBJECTIVES.values())


def parameter_options() -> dict[str, ParameterOption]:
    """The parameters of all objectives, by name."""
    found: dict[str, ParameterOption] = {}
    meanings: dict[str, dict[str, list[str]]] = {}
    for objective in objectives():
        types = get_type_hints(objective.parameters)
        for field in dataclasses.fields(objective.parameters):
            option = found.setdefault(field.name, ParameterOption(types[field.name], [], ""))
            option.owners.append(objective.name)
            meaning = meanings.setdefault(field.name, {}).setdefault(field.metadata.get("help", ""), [])
            meaning.append(f"{objective.name}: {field.default}")
    for name, option in found.items():
        option.help = " ".join(
            f"{text.rstrip('.')} (default of {', '.join(owners)})." for text, owners in meanings[name].items()
        )
    return found
