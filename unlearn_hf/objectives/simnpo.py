"""Reference-free, length-normalised negative preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unlearn_hf.common.checks import check_positive
from unlearn_hf.objectives.base import Objective
from unlearn_hf.objectives.npo import BETA_HELP

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood


@dataclass(frozen=True)
class SimNPOParameters:
    """Parameters of SimNPO."""

    beta: float = field(default=4.5, metadata={"help": BETA_HELP})
    delta: float = field(default=0.0, metadata={"help": "Mean NLL per answer token aimed at, in nats."})

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: unless beta is positive.
        """
        check_positive("beta", self.beta)


def simnpo(likelihood: AnswerLikelihood, parameters: SimNPOParameters) -> Tensor:
    """`(2 / beta) softplus(-beta (nll_i / T_i - delta))`, shape `[B]`; averaged over sequences.

    `T_i` is the number of answer tokens; `delta` (nats per token) is the NLL aimed at.

    Source: Fan et al., "Simplicity Prevails", arXiv 2410.07163, equation 4.
    """
    import torch.nn.functional as F

    mean_nll = likelihood.nll / likelihood.tokens.clamp(min=1)
    return (2 / parameters.beta) * F.softplus(-parameters.beta * (mean_nll - parameters.delta))


SIMNPO = Objective(
    name="simnpo",
    function=simnpo,
    unit="sequences",
    parameters=SimNPOParameters,
    summary="simple NPO: length-normalised, without a reference model",
    paper="Fan et al., Simplicity Prevails: Rethinking Negative Preference Optimization, arXiv 2410.07163",
)
