"""GRU: the forget gradient rectified against a moving average of the retain gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from unlearn_hf.common.options import option
from unlearn_hf.gradients.moving_average import GradientAverage
from unlearn_hf.gradients.weightings import Weights, unilateral_surgery
from unlearn_hf.training.optimizer_step import Losses
from unlearn_hf.training.unlearning import UnlearningTrainer
from unlearn_hf.training.unlearning_config import UnlearningConfig


@dataclass
class GRUConfig(UnlearningConfig):
    """Arguments of `GRUTrainer`."""

    retain_momentum: float = option(
        0.2,
        "Share of the past in the moving average of the retain gradient; 0 is gradient_surgery. The released code's "
        "`moving_avg` 0.8 is the share of the present gradient: 1 - retain_momentum.",
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a momentum outside [0, 1).
        """
        if not 0 <= self.retain_momentum < 1:
            raise ValueError(f"retain_momentum: {self.retain_momentum} is not in [0, 1); give 0.2, say.")
        super().__post_init__()


class GRUTrainer(UnlearningTrainer):
    """Gradient rectified unlearning: `d = g_f + max(0, -<m, g_f> / ||m||^2) m`, m a moving average of g_r.

    The forget gradient loses its part against the average retain gradient,
    `m_t = retain_momentum * m_{t-1} + (1 - retain_momentum) * g_r`, and is left alone where the two do not conflict.
    The average is taken once per optimizer step, over gradients that are accumulated and reduced over ranks, and a
    step that was skipped leaves no trace in it. It takes one float32 copy of the trained parameters, also in every
    checkpoint. The logged retain gradient norm and cosine are those of the average.

    Source: Wang et al., "GRU: Mitigating the Trade-off between Unlearning and Retention for Large Language Models",
    ICML 2025, arXiv 2503.09117. The average (starting at zero, the present gradient weighing 0.8) follows the released
    code; a common factor of m does not matter to the projection.
    """

    config_class = GRUConfig
    args: GRUConfig
    needs_gram: ClassVar[bool] = True
    copies_of_trained: ClassVar[int] = 1
    paper: ClassVar[dict[str, str]] = {
        "title": "GRU: Mitigating the Trade-off between Unlearning and Retention for Large Language Models",
        "url": "https://arxiv.org/abs/2503.09117",
        "citation": "Yue Wang, Qizhou Wang, Feng Liu, Wei Huang, Yali Du, Xiaojiang Du, Bo Han. ICML 2025.",
    }

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        self.retain_average = GradientAverage(self.args.retain_momentum)
        self._saved_average: dict[str, Any] | None = None

    def training_begins(self) -> None:
        """Lay out a saved average, now that parameters are where they will be trained."""
        super().training_begins()
        if self._saved_average is not None:
            assert self.gradients is not None
            self.retain_average.load_state_dict(self._saved_average, self.gradients)
            self._saved_average = None

    def gradients_collected(self, scale: float) -> None:
        """From here on the average stands for the retain gradient."""
        assert self.gradients is not None
        self.retain_average.enter(self.gradients, "retain", scale)

    def gradient_weights(self, gram: Tensor, losses: Losses) -> Weights:
        """Unilateral surgery without tolerance, against the average."""
        if not torch.isfinite(gram).all():  # a gradient scaler is looking for its scale
            self.retain_average.discard()
        return unilateral_surgery(gram)

    def after_step(self, before: Losses, after: Losses) -> None:
        """The step counts, so its gradient does."""
        self.retain_average.commit()

    def method_state(self) -> dict[str, Any]:
        """The average."""
        return {"retain_average": self.retain_average.state_dict(keep=self.args.should_save)}

    def load_method_state(self, state: dict[str, Any]) -> None:
        """Kept until parameters are in place."""
        self._saved_average = state["retain_average"]
