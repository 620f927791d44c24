"""Ascent weighted by saturation and importance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearn_hf.common.options import option
from unlearn_hf.objectives.base import Objective, Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood


@dataclass(frozen=True)
class SatImpParameters(Parameters):
    """Parameters of SatImp."""

    saturation: float = option(
        5.0, "Power of a token's probability in its weight (its beta 1); not negative.", only="not negative"
    )
    importance: float = option(
        1.0, "Power of one minus that probability (its beta 2); not negative.", only="not negative"
    )


def satimp(likelihood: AnswerLikelihood, parameters: SatImpParameters) -> Tensor:
    """`-sum_t sg(p_t^saturation (1 - p_t)^importance) nll_t` of each sequence, `[B]`; averaged over tokens.

    The weights carry no gradient. The loss is negative.

    Source: Yang et al., "Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning", ICML 2025,
    arXiv 2505.11953.
    """
    nll = likelihood.token_nll
    log_p = -nll.detach()
    weight = (parameters.saturation * log_p).exp() * (-log_p.expm1()).clamp(min=0) ** parameters.importance
    return likelihood.sum_by_sequence(-weight * nll)


SATIMP = Objective(
    name="satimp",
    function=satimp,
    non_negative=False,
    parameters=SatImpParameters,
    summary="gradient ascent, each token weighted by saturation and importance",
    paper="Yang et al., Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning, ICML 2025, arXiv 2505.11953",
)
