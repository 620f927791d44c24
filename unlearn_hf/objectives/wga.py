"""Weighted gradient ascent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearn_hf.common.options import option
from unlearn_hf.objectives.base import Objective, Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood


@dataclass(frozen=True)
class WGAParameters(Parameters):
    """Parameters of WGA."""

    weight_exponent: float = option(
        1.0, "Power of a token's probability that weights its ascent (its beta).", only="positive"
    )


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
