"""Objectives on the retain set: keep predicting the answers, or keep predicting what the model predicted before."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from unlearn_hf.likelihood.answers import AnswerLikelihood
from unlearn_hf.objectives.base import Objective


def negative_log_likelihood(likelihood: AnswerLikelihood) -> Tensor:
    """NLL of each sequence, `nll_i`, shape `[B]`; averaged over tokens it is the cross-entropy."""
    return likelihood.nll


def kullback_leibler(likelihood: AnswerLikelihood) -> Tensor:
    """`sum_t sum_v p_ref (log p_ref - log p)` of each sequence over its label positions, shape `[B]`.

    Averaged over label tokens only; prompt and padding do not count. Where the likelihoods bring the divergence of
    each token (`ReferenceModel.divergence`), it is summed, otherwise it is computed from logits.

    Raises:
        ValueError: when the likelihoods carry no logits or no reference logits.
    """
    if "divergence" in likelihood.token_values:
        return likelihood.sum_by_sequence(likelihood.token_values["divergence"])
    if likelihood.logits is None or likelihood.reference_logits is None:
        raise ValueError("reference_logits: KL compares distributions; keep the logits of model and reference.")
    log_p = F.log_softmax(likelihood.logits, dim=-1)
    log_p_reference = F.log_softmax(likelihood.reference_logits.float(), dim=-1)
    per_token = F.kl_div(log_p, log_p_reference, reduction="none", log_target=True).sum(-1)
    return likelihood.sum_by_sequence(per_token)


NEGATIVE_LOG_LIKELIHOOD = Objective(
    name="nll",
    function=negative_log_likelihood,
    unit="tokens",
    summary="cross-entropy of the retain answers",
    paper="Maini et al., TOFU: A Task of Fictitious Unlearning for LLMs, COLM 2024, arXiv 2401.06121 (GradDiff)",
)
KULLBACK_LEIBLER = Objective(
    name="kl",
    function=kullback_leibler,
    unit="tokens",
    reference="logits",
    summary="Kullback-Leibler divergence from the model before unlearning on the retain answers",
    paper="Maini et al., TOFU: A Task of Fictitious Unlearning for LLMs, COLM 2024, arXiv 2401.06121 (KL)",
)
