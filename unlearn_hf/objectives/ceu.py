"""Cross-entropy unlearning: the model's own distribution without the true token as a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearn_hf.objectives.base import Needs, NoParameters, Objective

if TYPE_CHECKING:
    from torch import Tensor


def ceu(logits: Tensor, targets: Tensor, reference: Tensor | None, parameters: NoParameters) -> Tensor:
    """Cross-entropy with `softmax(z)` without the true token, held fixed, at each label position, `[n]`.

    The target is the model's own distribution with the true token's logit at minus infinity; no gradient flows
    through it. Unlike ascent, the gradient does not grow where the true token is unlikely already. Released code can
    leave out the first tokens of an answer; here all of them count.

    Source: Yang, "CE-U: Cross Entropy Unlearning", arXiv 2503.01224.
    """
    import torch
    import torch.nn.functional as F

    without = logits.detach().scatter(-1, targets[:, None], -torch.inf).softmax(-1)
    return F.cross_entropy(logits, without, reduction="none")


CEU = Objective(
    name="ceu",
    token_function=ceu,
    needs=Needs(nll=False),
    summary="cross-entropy with the model's own distribution without the true token",
    paper="Yang, CE-U: Cross Entropy Unlearning, arXiv 2503.01224",
)
