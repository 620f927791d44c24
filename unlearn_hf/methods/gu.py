"""GU: the forget gradient made orthogonal to the retain gradient in the metric of the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unlearn_hf.common.options import option
from unlearn_hf.gradients.weightings import Weights
from unlearn_hf.methods.fixed_weights import FixedWeightsConfig
from unlearn_hf.training.optimizer_step import Losses
from unlearn_hf.training.unlearning import UnlearningTrainer

# What torch's Adam keeps in the state that is read here; the others keep it quantised, factored, or not at all.
OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")


@dataclass
class GUConfig(FixedWeightsConfig):
    """Arguments of `GUTrainer`; `forget_weight` is that of the orthogonal part of the forget gradient."""

    metric_epsilon: float | None = option(
        None,
        "Added to sqrt(v) in the metric; greater values make it more alike for all parameters. Default: the "
        "optimizer's own (`adam_epsilon`).",
        only="positive",
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a number out of range, or an optimizer whose metric is not known.
        """
        super().__post_init__()
        optimizer = getattr(self.optim, "value", self.optim)
        if optimizer not in OPTIMIZERS:
            raise ValueError(
                f"optim: {optimizer!r} keeps no second moment that method gu can read; choose one of "
                f"{', '.join(OPTIMIZERS)}."
            )
        if optimizer == "sgd" and self.metric_epsilon is not None:
            raise ValueError(f"metric_epsilon: {self.metric_epsilon} has no meaning for optim 'sgd'; leave it out.")


def orthogonal_weights(gram: Tensor, forget_weight: float = 1.0, retain_weight: float = 1.0) -> Weights:
    """Weights of `forget_weight (g_f - <g_f, g_r> / <g_r, g_r> g_r) + retain_weight g_r`.

    Args:
        gram: `[2, 2]`, forget first, in any metric. Without a retain gradient nothing is taken away.
        forget_weight: of the part of g_f at right angles to g_r.
        retain_weight: of g_r.
    """
    cross, retain = gram[0, 1].item(), gram[1, 1].item()
    return forget_weight, retain_weight - (forget_weight * cross / retain if retain > 0 else 0.0)


class GUTrainer(UnlearningTrainer):
    """Geometric disentanglement: `d = w_f (g_f - <g_f, g_r>_H / <g_r, g_r>_H g_r) + w_r g_r`.

    The inner product is `<a, b>_H = sum_i a_i b_i / (sqrt(v_i) + eps)`, `v` Adam's second moment with its bias
    correction as the last step left it. Adam divides what it is given by `sqrt(v) + eps`, so the forgetting part of
    its step leaves the retain loss as it is to first order (up to momentum, and to what this step adds to `v`). One
    projection of the whole gradient, whether the two conflict or not.

    Before the first step there is no `v`, and with SGD there is never one: the metric is then the Euclidean one. A
    parameter that has had no gradient so far has `v = 0` and counts with `1 / eps`; `metric_epsilon` dampens that.
    Other optimizers are refused.

    Source: Zhou et al., arXiv 2511.17100. The paper projects off the subspace of retain gradients; here that is
    spanned by the retain gradient of the step, accumulated and reduced over ranks. Its release describes a projection
    of each parameter by itself; ours is of all at once, which is the least change that keeps the retain loss.
    """

    config_class = GUConfig
    args: GUConfig
    needs_gram: ClassVar[bool] = True  # for the log, and to see an overflow
    paper: ClassVar[dict[str, str]] = {
        "title": "Geometric-disentangelment Unlearning",
        "url": "https://arxiv.org/abs/2511.17100",
        "citation": "Duo Zhou, Yuji Zhang, Tianxin Wei, Ruizhong Qiu et al. 2025, arXiv 2511.17100.",
    }

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self._metric_gram = torch.zeros(2, 2, dtype=torch.float64)

    def training_begins(self) -> None:
        """Refuse an optimizer, given as an object, whose metric is not known."""
        super().training_begins()
        optimizer = self._plain_optimizer()
        if not isinstance(optimizer, torch.optim.Adam | torch.optim.SGD):  # AdamW is an Adam
            raise ValueError(
                f"optimizers: {type(optimizer).__name__} keeps no second moment that method gu can read; give torch's "
                "Adam, AdamW or SGD."
            )

    def _plain_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer without accelerate's wrapper."""
        optimizer: Any = self.optimizer
        return getattr(optimizer, "optimizer", optimizer)

    def _metric(self) -> Callable[[nn.Parameter], Tensor | None]:
        """The function from a parameter to its metric, `None` where that is Euclidean."""
        optimizer = self._plain_optimizer()
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}

        def metric(parameter: nn.Parameter) -> Tensor | None:
            state = optimizer.state.get(parameter, {})
            if "exp_avg_sq" not in state:
                return None
            group = groups[id(parameter)]
            epsilon = group["eps"] if self.args.metric_epsilon is None else self.args.metric_epsilon
            moment = state.get("max_exp_avg_sq", state["exp_avg_sq"])
            correction = math.sqrt(1 - group["betas"][1] ** float(state["step"]))
            return 1 / (moment.sqrt() / correction + epsilon)

        return metric

    def gradients_collected(self, scale: float) -> None:
        """Take the inner products in the metric."""
        assert self.gradients is not None
        self._metric_gram = self.gradients.grams(scale, self._metric()).sum(0)

    def gradient_weights(self, gram: Tensor | None, losses: Losses) -> Weights:
        """The orthogonal part of the forget gradient, and the retain gradient."""
        return orthogonal_weights(self._metric_gram, self.args.forget_weight, self.args.retain_weight)
