"""Learn to refuse: cross-entropy of a refusal on the forget questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearn_hf.objectives.base import Needs, NoParameters, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood


def idk(likelihood: AnswerLikelihood, parameters: NoParameters) -> Tensor:
    """NLL of each refusal, shape `[B]`, averaged over the tokens of refusals; the forget answers are not looked at."""
    return likelihood.nll


IDK = Objective(
    name="idk",
    function=idk,
    needs=Needs(answers=("alternative",)),
    summary="cross-entropy of a refusal on the forget questions",
    paper="Maini et al., TOFU: A Task of Fictitious Unlearning for LLMs, COLM 2024, arXiv 2401.06121 (IDK)",
)
