"""Objectives on the retain set: keep predicting the answers, or keep predicting what the model predicted before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearn_hf.common.options import option
from unlearn_hf.objectives.base import Needs, NoParameters, Objective
from unlearn_hf.objectives.rmu import LAYER_HELP, squared_distance

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood


def negative_log_likelihood(likelihood: AnswerLikelihood, parameters: NoParameters) -> Tensor:
    """NLL of each sequence, `nll_i`, shape `[B]`; averaged over tokens it is the cross-entropy."""
    return likelihood.nll


def kullback_leibler(logits: Tensor, targets: Tensor, reference: Tensor | None, parameters: NoParameters) -> Tensor:
    """`sum_v p_ref (log p_ref - log p)` at each label position, shape `[n]`.

    Averaged over label tokens only; prompt and padding do not count (public code averages over them too). The
    gradient overwrites the logits.
    """
    from unlearn_hf.likelihood.in_place_losses import divergence

    assert reference is not None
    return divergence(logits, reference)


@dataclass(frozen=True)
class HiddenStatesParameters:
    """Parameters of the distance of hidden states."""

    layer: int = option(7, LAYER_HELP)


def hidden_states(likelihood: AnswerLikelihood, parameters: HiddenStatesParameters) -> Tensor:
    """`mean_d (h - h_ref)_d^2`, summed over the label positions of each sequence, `[B]`; averaged over tokens.

    `h` is the output of layer `layer` and `h_ref` that of the model before unlearning. RMU's retain loss: paper and
    code differ, and what is followed here, as for its forget loss; its factor alpha is the method's retain weight.

    Source: Li et al., arXiv 2403.03218, equation 2.
    """
    assert likelihood.hidden is not None
    assert likelihood.reference_hidden is not None
    return likelihood.sum_by_sequence(squared_distance(likelihood.hidden, likelihood.reference_hidden))


NEGATIVE_LOG_LIKELIHOOD = Objective(
    name="nll",
    function=negative_log_likelihood,
    is_nll=True,
    summary="cross-entropy of the retain answers",
    paper="Maini et al., TOFU: A Task of Fictitious Unlearning for LLMs, COLM 2024, arXiv 2401.06121 (GradDiff)",
)
KULLBACK_LEIBLER = Objective(
    name="kl",
    token_function=kullback_leibler,
    needs=Needs(nll=False, reference=("logits",)),
    zero_before_unlearning=True,
    summary="Kullback-Leibler divergence from the model before unlearning on the retain answers",
    paper="Maini et al., TOFU: A Task of Fictitious Unlearning for LLMs, COLM 2024, arXiv 2401.06121 (KL)",
)
HIDDEN_STATES = Objective(
    name="hidden",
    function=hidden_states,
    needs=Needs(nll=False, hidden=True, reference=("hidden",)),
    parameters=HiddenStatesParameters,
    zero_before_unlearning=True,
    summary="distance of hidden states of a layer from the model before unlearning",
    paper="Li et al., The WMDP Benchmark: Measuring and Reducing Malicious Use with Unlearning, arXiv 2403.03218",
)
