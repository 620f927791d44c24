"""Maximum entropy: the divergence from the uniform distribution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from unlearn_hf.objectives.base import Needs, NoParameters, Objective

if TYPE_CHECKING:
    from torch import Tensor


def kl_uniform(logits: Tensor, targets: Tensor, reference: Tensor | None, parameters: NoParameters) -> Tensor:
    """`KL(u || p) = logsumexp(z) - mean_v z_v - log V` at each label position, `[n]`, `u` the uniform distribution.

    This is the direction of the released code (without the 1e-12 that it adds to p); the reverse, `KL(p || u)`, would
    be `log V` minus the entropy.

    Source: Yuan et al., "A Closer Look at Machine Unlearning for Large Language Models" (ME), arXiv 2410.08109.
    """
    return logits.logsumexp(-1) - logits.mean(-1) - math.log(logits.shape[-1])


KL_UNIFORM = Objective(
    name="kl_uniform",
    token_function=kl_uniform,
    needs=Needs(nll=False),
    summary="maximum entropy: divergence of the model from the uniform distribution",
    paper="Yuan et al., A Closer Look at Machine Unlearning for Large Language Models, ICLR 2025, arXiv 2410.08109",
)
