"""GDR-GMA: both gradients rectified tensor by tensor, weighted by how high the retain loss is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unlearn_hf.common.options import option
from unlearn_hf.gradients.weightings import Weights
from unlearn_hf.methods.bounded_retain_loss import BoundedRetainLossConfig, BoundedRetainLossTrainer
from unlearn_hf.objectives import FORGET_OBJECTIVES
from unlearn_hf.training.optimizer_step import Losses


@dataclass
class GDRGMAConfig(BoundedRetainLossConfig):
    """Arguments of `GDRGMATrainer`."""

    forget_loss: str = option("ga", "Objective on the forget set.", choices=FORGET_OBJECTIVES.keys())
    magnitude_slope: float = option(
        100.0,
        "How sharply the weight moves from forgetting to retaining where the retain loss crosses its level, per nat.",
        only="positive",
    )


def magnitudes(retain_loss: float, level: float, slope: float) -> Weights:
    """`(s, 1 - s)` with `s = sigmoid(slope * (level - retain_loss))`: forget while the retain loss is low."""
    difference = torch.tensor(slope * (level - retain_loss), dtype=torch.float64)
    return torch.sigmoid(difference).item(), torch.sigmoid(-difference).item()


def rectified_weights(grams: Tensor, weights: Weights) -> Tensor:
    """Weights of `w_f g_f' + w_r g_r'`, where g' is g without its part against the other gradient of its tensor.

    `g_f' = g_f - <g_f, g_r> / ||g_r||^2 g_r` and `g_r' = g_r - <g_f, g_r> / ||g_f||^2 g_f` where `<g_f, g_r> < 0`.

    Args:
        grams: `[P, 2, 2]`, forget first.
        weights: w_f and w_r.

    Returns:
        `[P, 2]`: the weights of g_f and g_r of each tensor.
    """
    conflict = grams[:, 0, 1].clamp(max=0.0)
    # Where a norm is zero there is no conflict.
    shares = conflict.unsqueeze(1) / grams.diagonal(dim1=1, dim2=2).clamp(min=torch.finfo(grams.dtype).tiny)
    forget, retain = weights
    return torch.stack([forget - retain * shares[:, 0], retain - forget * shares[:, 1]], dim=1)


class GDRGMATrainer(BoundedRetainLossTrainer):
    """Direction-rectified and magnitude-adjusted gradients: `d = s g_f' + (1 - s) g_r'`, tensor by tensor.

    In each tensor where the two gradients conflict, each loses its part against the other (`rectified_weights`). Then
    one pair of weights for all tensors: `s = sigmoid(magnitude_slope * (level - l_r))`, so the model forgets while the
    retain loss is below its level and repairs it when it is above. Logged weights are `s` and `1 - s`.

    Source: Lin et al., "GDR-GMA: Machine Unlearning via Direction-Rectified and Magnitude-Adjusted Gradients", ACM
    Multimedia 2024. From the released code: rectification per tensor, the sigmoid, its slope 100, gradient ascent, a
    level of 0.02 (absolute, on training images whose loss is about zero). Our choices: the default level is the
    loss of the same rows before unlearning plus 0.02, because a language model's loss is not zero; both projections
    use the original gradients, where the released code projects the second off the first one's projection, which
    leaves part of the conflict. Left out: the memory of past forget gradients that the released code keeps for the
    last tensor.
    """

    config_class = GDRGMAConfig
    args: GDRGMAConfig
    needs_gram: ClassVar[bool] = True
    paper: ClassVar[dict[str, str]] = {
        "title": "GDR-GMA: Machine Unlearning via Direction-Rectified and Magnitude-Adjusted Gradients",
        "url": "https://openreview.net/forum?id=52NGERGnlz",
        "citation": "Shen Lin, Xiaoyu Zhang, Willy Susilo, Xiaofeng Chen, Jun Liu. ACM Multimedia 2024.",
    }

    def gradient_weights(self, gram: Tensor | None, losses: Losses) -> Weights:
        """The magnitudes, the same for all tensors."""
        return magnitudes(losses.retain, self.allowed_retain_loss(), self.args.magnitude_slope)

    def parameter_weights(self, grams: Tensor, losses: Losses, weights: Weights) -> Tensor:
        """The magnitudes applied to the rectified gradients of each tensor."""
        return rectified_weights(grams, weights)
