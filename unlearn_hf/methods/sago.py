"""SAGO: the two gradients put together element by element, by whether their signs agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unlearn_hf.common.options import option
from unlearn_hf.gradients.weightings import Weights
from unlearn_hf.methods.fixed_weights import FixedWeightsConfig
from unlearn_hf.training.optimizer_step import Losses
from unlearn_hf.training.unlearning import UnlearningTrainer

FORMS = ("gated", "prefer_retain")


@dataclass
class SAGOConfig(FixedWeightsConfig):
    """Arguments of `SAGOTrainer`; the weights are those of the gradients."""

    form: str = option(
        "gated",
        "Where signs agree. gated: the forget gradient alone. prefer_retain: both, added up. (Where they conflict, "
        "both take the retain gradient alone.)",
        choices=FORMS,
    )


def sign_gated(forget: Tensor, retain: Tensor, weights: Weights, form: str = "gated") -> Tensor:
    """`w_r g_r` where the signs of the gradients conflict; else `w_f g_f`, plus `w_r g_r` with `prefer_retain`.

    A zero on either side is no conflict.

    Args:
        forget: g_f of one parameter, any shape.
        retain: g_r, likewise.
        weights: w_f and w_r.
        form: one of `FORMS`.

    Source: SAGO, arXiv 2604.14808.
    """
    conflict = forget.sign() * retain.sign() < 0  # a product of the values themselves could underflow
    agreed = weights[0] * forget
    kept = weights[1] * retain
    return torch.where(conflict, kept, agreed + kept if form == "prefer_retain" else agreed)


class SAGOTrainer(UnlearningTrainer):
    """Sign-gated gradients: an element of the update is `w_r g_r` where signs conflict, else `w_f g_f` (`+ w_r g_r`).

    To first order no element's change raises the retain loss. Signs are those of gradients that are accumulated over
    micro-batches and reduced over ranks; no weights from the Gram matrix express this, so it uses the hook for rules
    that see both gradients (`elementwise_rule`), which works on sharded gradients as they are.

    Source: SAGO, arXiv 2604.14808 (ACL 2026). The released code has both forms, counts a zero as no conflict, and
    refuses FSDP; FSDP2 is supported here. The rule shapes what the optimizer is given: the moments of AdamW mix
    steps, so the statement on the retain loss holds for SGD.
    """

    config_class = SAGOConfig
    args: SAGOConfig
    needs_gram: ClassVar[bool] = True  # for the log, and to see an overflow that the rule could hide
    paper: ClassVar[dict[str, str]] = {
        "title": "SAGO (ACL 2026)",
        "url": "https://arxiv.org/abs/2604.14808",
        "citation": "ACL 2026, arXiv 2604.14808.",
    }

    def gradient_weights(self, gram: Tensor | None, losses: Losses) -> Weights:
        """The two configured weights."""
        return self.args.forget_weight, self.args.retain_weight

    def elementwise_rule(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The configured form."""
        weights = self.args.forget_weight, self.args.retain_weight
        return lambda forget, retain: sign_gated(forget, retain, weights, self.args.form)
