"""Negative preference optimisation on the forget set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearn_hf.common.options import option
from unlearn_hf.objectives.base import Needs, Objective, Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood

BETA_HELP = "Inverse temperature."


@dataclass(frozen=True)
class NPOParameters(Parameters):
    """Parameters of NPO."""

    beta: float = option(0.1, BETA_HELP, only="positive")


def npo(likelihood: AnswerLikelihood, parameters: NPOParameters) -> Tensor:
    """`(2 / beta) softplus(-beta (nll_i - nll_ref_i))`, shape `[B]`; averaged over sequences.

    The log-ratio is the *sum* over the answer tokens of a sequence. At the start, where the model is its own
    reference, the value is `(2 / beta) ln 2` and the gradient is that of gradient ascent on the per-sequence sum.

    Raises:
        ValueError: when the likelihoods carry no reference.

    Source: Zhang et al., "Negative Preference Optimization", COLM 2024, arXiv 2404.05868, equation 3.
    """
    import torch.nn.functional as F

    if likelihood.reference_nll is None:
        raise ValueError("reference_nll: NPO compares with the model before unlearning; compute that column first.")
    beta = parameters.beta
    return (2 / beta) * F.softplus(-beta * (likelihood.nll - likelihood.reference_nll))


NPO = Objective(
    name="npo",
    function=npo,
    unit="sequences",
    needs=Needs(reference=("nll",)),
    parameters=NPOParameters,
    summary="negative preference optimisation: bounded ascent relative to the model before unlearning",
    paper="Zhang et al., Negative Preference Optimization, COLM 2024, arXiv 2404.05868",
)
