"""Negative preference optimisation on the forget set."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from unlearn_hf.likelihood.answers import AnswerLikelihood
from unlearn_hf.objectives.base import Objective


def npo(likelihood: AnswerLikelihood, beta: float) -> Tensor:
    """`(2 / beta) softplus(-beta (nll_i - nll_ref_i))`, shape `[B]`; averaged over sequences.

    The log-ratio is the *sum* over the answer tokens of a sequence. At the start, where the model is its own
    reference, the value is `(2 / beta) ln 2` and the gradient is that of gradient ascent on the per-sequence sum.

    Raises:
        ValueError: when the likelihoods carry no reference.

    Source: Zhang et al., "Negative Preference Optimization", COLM 2024, arXiv 2404.05868, equation 3.
    """
    if likelihood.reference_nll is None:
        raise ValueError("reference_nll: NPO compares with the model before unlearning; compute that column first.")
    return (2 / beta) * F.softplus(-beta * (likelihood.nll - likelihood.reference_nll))


NPO = Objective(
    name="npo",
    function=npo,
    unit="sequences",
    reference="nll",
    defaults={"beta": 0.1},
    summary="negative preference optimisation: bounded ascent relative to the model before unlearning",
    paper="Zhang et al., Negative Preference Optimization, COLM 2024, arXiv 2404.05868",
)
