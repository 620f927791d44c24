"""The straight line from the weights before unlearning to those of now, and the nearest point on it that will do."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from unlearn_hf.training.weights_copy import WeightsCopy

_HALVINGS = 6


class WeightsPath:
    """Points `before + share (now - before)` of the trained parameters.

    Training goes on beyond what is needed: the forget loss pushes until it fades, the retain loss mends meanwhile.
    Half of the way back much of what was lost is there again, while the answers are still gone.

    Args:
        model: its trained parameters are `before` once `begin` was called; copies rest on the CPU.

    Source: interpolation as in Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), CVPR 2022, arXiv
    2109.01903, section 3; here for the share that is just enough.
    """

    def __init__(self, model: nn.Module) -> None:
        self._before, self._now = WeightsCopy(model), WeightsCopy(model)

    def begin(self, before: list[Tensor] | None = None) -> None:
        """Take the parameters as they are, unless the line has a beginning already, or those that `before` brings."""
        if before is not None or not self._before.filled:
            self._before.keep(before)

    def tensors(self) -> list[Tensor]:
        """The beginning of the line, a tensor for each trained parameter."""
        return self._before.tensors()

    def nearest(self, enough: Callable[[], bool]) -> float:
        """Move the model to the point nearest to `before` at which `enough` still says yes, by halving.

        Args:
            enough: asks the model as it is; it must say yes of the weights of now, and is taken to say no before some
                point of the line and yes behind it.

        Returns:
            The share of the way, in (0, 1]; `back` returns to the weights of now.
        """
        self._now.keep()
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            self._now.blend(self._before, middle)
            low, high = (low, middle) if enough() else (middle, high)
        self._now.blend(self._before, high)
        return high

    def back(self) -> None:
        """Return to the weights of now, as `nearest` found them."""
        self._now.restore()
