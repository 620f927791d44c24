"""Reference-free, length-normalised negative preference optimisation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from unlearn_hf.likelihood.answers import AnswerLikelihood
from unlearn_hf.objectives.base import Objective


def simnpo(likelihood: AnswerLikelihood, beta: float, delta: float) -> Tensor:
    """`(2 / beta) softplus(-beta (nll_i / T_i - delta))`, shape `[B]`; averaged over sequences.

    `T_i` is the number of answer tokens; `delta` (nats per token) is the NLL aimed at.

    Source: Fan et al., "Simplicity Prevails", arXiv 2410.07163, equation 4.
    """
    mean_nll = likelihood.nll / likelihood.tokens.clamp(min=1)
    return (2 / beta) * F.softplus(-beta * (mean_nll - delta))


SIMNPO = Objective(
    name="simnpo",
    function=simnpo,
    unit="sequences",
    defaults={"beta": 4.5, "delta": 0.0},
    summary="simple NPO: length-normalised, without a reference model",
    paper="Fan et al., Simplicity Prevails: Rethinking Negative Preference Optimization, arXiv 2410.07163",
)
