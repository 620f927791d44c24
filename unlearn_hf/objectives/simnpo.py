"""Reference-free, length-normalised negative preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearn_hf.common.options import option
from unlearn_hf.objectives.base import Objective, Parameters
from unlearn_hf.objectives.npo import BETA_HELP

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood


@dataclass(frozen=True)
class SimNPOParameters(Parameters):
    """Parameters of SimNPO."""

    beta: float = option(4.5, BETA_HELP, only="positive")
    delta: float = option(0.0, "Mean NLL per answer token aimed at, in nats.")


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
