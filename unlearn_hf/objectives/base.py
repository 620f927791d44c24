"""What an objective is: a pure function of answer likelihoods with a unit to average over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from unlearn_hf.likelihood.answers import AnswerLikelihood


@dataclass(frozen=True)
class Objective:
    """An objective to minimise on the forget or the retain set.

    Attributes:
        name: the name used in configs.
        function: maps an `AnswerLikelihood` (and keyword parameters) to one contribution per sequence, `[B]`. The loss
            is the sum of contributions over the whole optimizer step divided by the number of `unit`s in it.
        unit: what the loss averages over: labelled `"tokens"` or `"sequences"`.
        reference: what it needs of the model before unlearning: nothing, the `"nll"` of each sequence, or `"logits"`.
        non_negative: whether the loss is bounded below by zero (a logarithm of it exists).
        defaults: default values of the parameters that `function` takes.
        summary: one line.
        paper: where it comes from.
    """

    name: str
    function: Callable[..., Tensor]
    unit: Literal["tokens", "sequences"]
    summary: str
    paper: str
    reference: Literal["nll", "logits"] | None = None
    non_negative: bool = True
    defaults: dict[str, float] = field(default_factory=dict)

    def __call__(self, likelihood: AnswerLikelihood, **parameters: float) -> Tensor:
        """Contributions of each sequence, shape `[B]`."""
        return self.function(likelihood, **{**self.defaults, **parameters})
