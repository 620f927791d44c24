"""Flat logits: the squared margin of the largest one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearn_hf.objectives.base import Needs, NoParameters, Objective

if TYPE_CHECKING:
    from torch import Tensor


def logit_margin(logits: Tensor, targets: Tensor, reference: Tensor | None, parameters: NoParameters) -> Tensor:
    """`(max_v z_v - mean_v z_v)^2` at each label position, `[n]`; zero for a uniform distribution.

    It is PDU's forget loss. Released code averages over all positions, padding included; here label positions count.

    Source: Entesari et al., "Constrained Entropic Unlearning", arXiv 2506.05314.
    """
    return (logits.amax(-1) - logits.mean(-1)).square()


LOGIT_MARGIN = Objective(
    name="logit_margin",
    token_function=logit_margin,
    needs=Needs(nll=False),
    summary="squared margin of the largest logit over their mean (PDU's own): towards a uniform distribution",
    paper="Entesari et al., Constrained Entropic Unlearning: A Primal-Dual Framework for LLMs, arXiv 2506.05314",
)
