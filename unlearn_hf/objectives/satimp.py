"""Ascent weighted by saturation and importance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unlearn_hf.objectives.base import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood


@dataclass(frozen=True)
class SatImpParameters:
    """Parameters of SatImp."""

    saturation: float = field(
        default=5.0, metadata={"help": "Power of a token's probability in its weight (its beta 1); not negative."}
    )
    importance: float = field(
        default=1.0, metadata={"help": "Power of one minus that probability (its beta 2); not negative."}
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: for a negative one.
        """
        for name in ("saturation", "importance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: {getattr(self, name)} is negative; give zero or more.")


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
