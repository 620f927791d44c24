"""Representation misdirection: hidden states of a layer towards a random direction."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearn_hf.common.options import option
from unlearn_hf.objectives.base import Needs, Objective, Parameters

if TYPE_CHECKING:
    from torch import Tensor

    from unlearn_hf.likelihood.answers import AnswerLikelihood

LAYER_HELP = "Layer whose output is compared, counted from 0."


@dataclass(frozen=True)
class RMUParameters(Parameters):
    """Parameters of RMU."""

    layer: int = option(7, LAYER_HELP)
    steering_coefficient: float = option(
        2.0, "Length of the target; of `adaptive_steering`, how many times the norm before.", only="positive"
    )
    adaptive_steering: bool = option(
        False, "Scale the target with the norm of the same hidden state before unlearning."
    )
    direction_seed: int = option(42, "Seeds the random direction.")


@functools.lru_cache(maxsize=4)
def direction(size: int, seed: int) -> Tensor:
    """The unit vector `[size]` (float64) along numbers drawn uniformly from [0, 1); the same on every rank."""
    import torch

    drawn = torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn / drawn.norm()


def rmu(likelihood: AnswerLikelihood, parameters: RMUParameters) -> Tensor:
    """`mean_d (h - c u)_d^2`, summed over the label positions of each sequence, `[B]`; averaged over tokens.

    `h` is the output of layer `layer`, `u` a fixed random unit vector, `c` the `steering_coefficient`, which
    `adaptive_steering` multiplies with the norm of `h` before unlearning.

    Where paper and released code disagree: the paper has the squared norm of the difference, the code its mean over
    dimensions, which is followed, because published coefficients belong to it. Both average over all tokens of raw
    text (the code over padding too); here positions are those that predict an answer token, which for raw text are
    all but the last. Which parameters are trained (the paper: of layers `layer - 2` to `layer`) is for
    `trainable_parameters` to say.

    Source: Li et al., arXiv 2403.03218, equation 1; adaptive: Dang et al., arXiv 2408.06223, equation 12.
    """
    hidden = likelihood.hidden
    assert hidden is not None
    target = parameters.steering_coefficient * direction(hidden.shape[-1], parameters.direction_seed)
    target = target.to(hidden.device, hidden.dtype)
    if parameters.adaptive_steering:
        assert likelihood.reference_hidden is not None
        target = target * likelihood.reference_hidden.norm(dim=-1, keepdim=True)
    return likelihood.sum_by_sequence(squared_distance(hidden, target))


def squared_distance(hidden: Tensor, target: Tensor) -> Tensor:
    """Mean over dimensions of the squared difference, `[N, H]` to `[N]`, in float32 at least."""
    import torch

    precise = torch.promote_types(hidden.dtype, torch.float32)
    return (hidden.to(precise) - target.to(precise)).square().mean(-1)


def _needs(parameters: RMUParameters) -> Needs:
    return Needs(nll=False, hidden=True, reference=("hidden",) if parameters.adaptive_steering else ())


RMU = Objective(
    name="rmu",
    function=rmu,
    needs=_needs,
    parameters=RMUParameters,
    summary="representation misdirection: hidden states of a layer towards a random direction",
    paper="Li et al., The WMDP Benchmark: Measuring and Reducing Malicious Use with Unlearning, arXiv 2403.03218",
)
