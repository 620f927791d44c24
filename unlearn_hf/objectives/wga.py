"""Weighted gradient ascent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unlearn_hf.common.checks import check_positive
from unlearn_hf.objectives.base import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood


@dataclass(frozen=True)
class WGAParameters:
    """Parameters of WGA."""

    weight_exponent: float = field(
        default=1.0, metadata={"help": "Power of a token's probability that weights its ascent (its beta)."}
    )

    def __post_init__(self) -> None:
        """Check the value.

        Raises:
            ValueError: unless it is positive.
        """
        check_positive("weight_exponent", self.weight_exponent)


def wga(likelihood: AnswerLikelihood, parameters: WGAParameters) -> Tensor:
    """`-sum_t sg(p_t)^beta nll_t` of each sequence, `[B]`; averaged over tokens.

    The weight carries no gradient, so that ascent fades where a token is unlikely already. The loss is negative.

    Source: Wang et al., "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond", ICLR 2025,
    arXiv 2502.19301.
    """
    nll = likelihood.token_nll
    return likelihood.sum_by_sequence(-(-parameters.weight_exponent * nll.detach()).exp() * nll)


WGA = Objective(
    name="wga",
    function=wga,
    non_negative=False,
    parameters=WGAParameters,
    summary="gradient ascent, each token weighted by its probability",
    paper="Wang et al., Rethinking LLM Unlearning Objectives, ICLR 2025, arXiv 2502.19301",
)
