"""What both objectives of a run ask of the model and of the one before unlearning, by what they declare."""

from __future__ import annotations

from typing import Any

from unlearn_hf.objectives import Needs, Objective
from unlearn_hf.training.contributions import batch_names


class DeclaredNeeds:
    """The objectives of a configuration, by the loss that they are (`"forget"`, `"retain"`).

    Args:
        args: an `UnlearningConfig`.

    Attributes:
        objectives: what is minimised.
        needs: what each needs of its rows.
        parameters: the parameters of each.
    """

    def __init__(self, args: Any) -> None:
        self.objectives: dict[str, Objective] = {"forget": args.forget_objective, "retain": args.retain_objective}
        self.needs: dict[str, Needs] = {"forget": args.needs_of("forget"), "retain": args.needs_of("retain")}
        self.parameters = {name: args.parameters_of(objective) for name, objective in self.objectives.items()}

    def layers(self, name: str) -> int | None:
        """How many layers of the model have a gradient of the loss `name`; `None` for all of them and the head."""
        reaches_head = self.objectives[name].reaches_head(self.needs[name])
        return None if reaches_head else 1 + self.parameters[name].layer

    @property
    def layers_read(self) -> list[int]:
        """The layers whose output is asked for."""
        return [self.parameters[name].layer for name, needs in self.needs.items() if needs.hidden]

    @property
    def compared(self) -> dict[str, int | None]:
        """The sets that are compared with the model before unlearning: by a layer's output, or (`None`) logits."""
        return {
            each: self.parameters[name].layer if "hidden" in needs.reference else None
            for name, needs in self.needs.items()
            if {"logits", "hidden"} & set(needs.reference)
            for each in batch_names(name, needs)
        }

    @property
    def layers_compared(self) -> int | None:
        """How many layers of the model before unlearning are needed for that; `None` for all of them."""
        return None if None in self.compared.values() else 1 + max(self.layers_read)
