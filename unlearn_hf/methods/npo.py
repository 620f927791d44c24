"""NPO: negative preference optimisation with a retain term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from unlearn_hf.methods.fixed_weights import FixedWeightsConfig, FixedWeightsTrainer


@dataclass
class NPOConfig(FixedWeightsConfig):
    """Arguments of `NPOTrainer`; `beta` defaults to 0.1."""


class NPOTrainer(FixedWeightsTrainer):
    """Negative preference optimisation: `forget_weight * NPO_f + retain_weight * R_r`, R = NLL or KL.

    `NPO_f = (2/beta) mean_i softplus(-beta (nll_i - nll_ref_i))` with the log-ratio summed over each answer. Where a
    sequence has become unlikely its gradient fades, so forgetting stops by itself. The reference likelihoods are a
    column computed once before training, so NPO itself keeps no second model (`retain_loss: kl` does, under full
    fine-tuning).

    Source: Zhang et al., "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
    COLM 2024, arXiv 2404.05868, equation 3 (with the retain terms of its section 4).
    """

    config_class = NPOConfig
    paper: ClassVar[dict[str, str]] = {
        "title": "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
        "url": "https://arxiv.org/abs/2404.05868",
        "citation": "Ruiqi Zhang, Licong Lin, Yu Bai, Song Mei. COLM 2024.",
    }
