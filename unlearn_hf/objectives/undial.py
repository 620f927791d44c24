"""Self-distillation with adjusted logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearn_hf.common.options import option
from unlearn_hf.objectives.base import Needs, Objective, Parameters

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class UNDIALParameters(Parameters):
    """Parameters of UNDIAL."""

    strength: float = option(
        10.0, "By how much the true token's logit is lowered in the teacher (its beta).", only="positive"
    )


def undial(logits: Tensor, targets: Tensor, reference: Tensor | None, parameters: UNDIALParameters) -> Tensor:
    """Cross-entropy with `softmax(z_ref - strength onehot(y))` at each label position, `[n]`.

    `z_ref` are the logits of the model before unlearning and `y` the true token. Released code averages over prompt
    and padding as well, where it lowers the logit of whatever token an index of -100 reaches; label positions alone
    count here, as in the paper.

    Source: Dong et al., arXiv 2402.10052, equations 3 and 4.
    """
    import torch.nn.functional as F

    assert reference is not None
    lowered = reference.scatter_add(-1, targets[:, None], reference.new_full((len(targets), 1), -parameters.strength))
    return F.cross_entropy(logits, lowered.softmax(-1), reduction="none")


UNDIAL = Objective(
    name="undial",
    token_function=undial,
    needs=Needs(nll=False, reference=("logits",)),
    parameters=UNDIALParameters,
    summary="self-distillation from the model before unlearning with the true token's logit lowered",
    paper="Dong et al., UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning, NAACL 2025, "
    "arXiv 2402.10052",
)
