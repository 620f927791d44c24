"""Direct preference optimisation: a refusal preferred to the forget answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearn_hf.objectives.base import Needs, Objective
from unlearn_hf.objectives.npo import NPOParameters

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood


def dpo(likelihood: AnswerLikelihood, parameters: NPOParameters) -> Tensor:
    """`(2 / beta) softplus(-beta ((nll_f - nll_ref_f) - (nll_a - nll_ref_a)))`, shape `[B]`; a mean over sequences.

    `f` is the forget answer and `a` the alternative one (a refusal); log-ratios are summed over each answer. Rafailov
    et al. have no prefactor; with `2 / beta`, as in NPO's released code and those after it, the gradient at the start
    does not depend on beta, and this is what is computed here.

    Source: Rafailov et al., arXiv 2305.18290, equation 7; for unlearning: Zhang et al., arXiv 2404.05868, section 2.
    """
    import torch.nn.functional as F

    other = likelihood.alternative
    assert other is not None
    assert other.reference_nll is not None
    assert likelihood.reference_nll is not None
    forgotten = likelihood.nll - likelihood.reference_nll
    learnt = other.reference_nll - other.nll
    return (2 / parameters.beta) * F.softplus(-parameters.beta * (forgotten + learnt))


DPO = Objective(
    name="dpo",
    function=dpo,
    unit="sequences",
    needs=Needs(answers=("own", "alternative"), reference=("nll",)),
    parameters=NPOParameters,
    summary="direct preference optimisation: a refusal preferred to the forget answer",
    paper="Rafailov et al., Direct Preference Optimization, NeurIPS 2023, arXiv 2305.18290",
)
