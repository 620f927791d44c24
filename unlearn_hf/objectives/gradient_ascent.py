"""Gradient ascent on the forget set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearn_hf.objectives.base import NoParameters, Objective

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood


def gradient_ascent(likelihood: AnswerLikelihood, parameters: NoParameters) -> Tensor:
    """Negative NLL of each sequence, `-nll_i`, shape `[B]`; averaged over tokens it is `-CE`. Unbounded below."""
    return -likelihood.nll


GRADIENT_ASCENT = Objective(
    name="ga",
    function=gradient_ascent,
    non_negative=False,
    summary="gradient ascent: minimise minus the cross-entropy (unbounded)",
    paper="Jang et al., Knowledge Unlearning for Mitigating Privacy Risks in Language Models, arXiv 2210.01504",
)
