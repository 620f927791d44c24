"""Gradient ascent on the forget set."""

from __future__ import annotations

from torch import Tensor

from unlearn_hf.likelihood.answers import AnswerLikelihood
from unlearn_hf.objectives.base import Objective


def gradient_ascent(likelihood: AnswerLikelihood) -> Tensor:
    """Negative NLL of each sequence, `-nll_i`, shape `[B]`; averaged over tokens it is `-CE`. Unbounded below."""
    return -likelihood.nll


GRADIENT_ASCENT = Objective(
    name="ga",
    function=gradient_ascent,
    unit="tokens",
    non_negative=False,
    summary="gradient ascent: minimise minus the cross-entropy (unbounded)",
    paper="Jang et al., Knowledge Unlearning for Mitigating Privacy Risks in Language Models, arXiv 2210.01504",
)
