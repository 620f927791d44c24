"""Two weights from the 2x2 Gram matrix of the forget and the retain gradient.

In every function `gram` is `[[<g_f, g_f>, <g_f, g_r>], [<g_r, g_f>, <g_r, g_r>]]` (`[2, 2]`, float64), gradients are
those of losses to minimise, and the result `(w_f, w_r)` is used as `d = w_f g_f + w_r g_r`, `theta -= lr * d`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Weights = tuple[float, float]

NOISE_FLOOR_FLOAT32 = 1e-5
NOISE_FLOOR_HALF = 1e-3
"""Share of the forget gradient's norm below which the gradient of a retain loss that is zero before unlearning (KL) is
rounding noise. Measured at a first step, where the exact one is zero: 0 in float32, 4e-5 in bfloat16, where steps that
are too small for it leave up to 2e-4."""


def without_noise(grams: Tensor, floor: float) -> Tensor:
    """Inner products in which a retain gradient that is rounding noise counts as zero.

    Args:
        grams: `[2, 2]`, or `[P, 2, 2]` for each parameter by itself.
        floor: share of the norm of the whole forget gradient up to which the whole retain gradient is noise.

    Returns:
        `grams`, or a copy whose products with the retain gradient are zero.
    """
    total = grams.reshape(-1, 2, 2).sum(0)
    if total[1, 1] > floor**2 * total[0, 0]:
        return grams
    kept = torch.zeros_like(grams)
    kept[..., 0, 0] = grams[..., 0, 0]
    return kept


def _entries(gram: Tensor) -> tuple[float, float, float]:
    return gram[0, 0].item(), gram[0, 1].item(), gram[1, 1].item()


def normalized_sum(gram: Tensor) -> Weights:
    """NGDiff: `(1/||g_f||, 1/||g_r||)`. A gradient of zero gets weight zero.

    Source: Bu, Jin et al., NAACL 2025, arXiv 2410.22086.
    """
    forget, _, retain = _entries(gram)
    return (1 / math.sqrt(forget) if forget > 0 else 0.0, 1 / math.sqrt(retain) if retain > 0 else 0.0)


def unilateral_surgery(gram: Tensor, epsilon: float = 0.0) -> Weights:
    """`(1, max(0, (-<g_r,g_f> - epsilon) / ||g_r||^2))`: the closest direction to g_f with `<g_r, d> >= -epsilon`.

    Source: Zhou et al., NeurIPS 2025, arXiv 2510.22124, proposition 3.2.
    """
    _, cross, retain = _entries(gram)
    return 1.0, max(0.0, (-cross - epsilon) / retain) if retain > 0 else 0.0


def pcgrad(gram: Tensor) -> Weights:
    """Project each gradient off the other where they conflict, and add the two.

    Source: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, arXiv 2001.06782.
    """
    forget, cross, retain = _entries(gram)
    if cross >= 0:
        return 1.0, 1.0
    return 1 - cross / forget, 1 - cross / retain


def one_sided_pcgrad(gram: Tensor, forget_weight: float = 1.0, retain_weight: float = 1.0) -> Weights:
    """`forget_weight g_f' + retain_weight g_r`, where g_f' is g_f without its part against g_r where they conflict.

    One projection of the whole gradient, of the forget side alone. Without `retain_weight` it is unilateral surgery.

    Source: the baseline in the code of SAGO, arXiv 2604.14808, after PCGrad, arXiv 2001.06782.
    """
    _, cross, retain = _entries(gram)
    share = min(cross, 0.0) / retain if retain > 0 else 0.0
    return forget_weight, retain_weight - forget_weight * share


def mgda(gram: Tensor) -> Weights:
    """The shortest vector in the segment between the two gradients.

    Where the retain gradient is zero (KL before unlearning) that vector is zero, and the model would never move; there
    the forget gradient is taken alone.

    Source: Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, arXiv 1810.04650.
    """
    forget, cross, retain = _entries(gram)
    if retain == 0:
        return 1.0, 0.0
    distance = forget - 2 * cross + retain
    share = min(1.0, max(0.0, (retain - cross) / distance)) if distance > 0 else 0.5
    return share, 1 - share


def blur(gram: Tensor, gamma: float = 1.0) -> Weights:
    """`gamma g_f` plus the part of the retain gradient at right angles to it: `(gamma - <g_r,g_f>/||g_f||^2, 1)`.

    Source: "BLUR: A Bi-Level Optimization Approach for LLM Unlearning", arXiv 2506.08164.
    """
    forget, cross, _ = _entries(gram)
    return (gamma - cross / forget if forget > 0 else 0.0), 1.0


def cagrad(gram: Tensor, c: float = 0.4) -> Weights:
    """The direction within `c ||g_0||` of the mean gradient g_0 that helps the worse-off objective most.

    `d = g_0 + c ||g_0|| / ||g_w|| g_w` with `g_w = x g_f + (1 - x) g_r`, where x in [0, 1] minimises
    `<g_w, g_0> + c ||g_0|| ||g_w||`.

    Source: Liu et al., "Conflict-Averse Gradient Descent", NeurIPS 2021, arXiv 2110.14048, algorithm 1.
    """
    from scipy.optimize import minimize_scalar

    forget, cross, retain = _entries(gram)
    mean_norm = math.sqrt(max((forget + 2 * cross + retain) / 4, 0.0))

    def norm(x: float) -> float:
        return math.sqrt(max(x * x * forget + 2 * x * (1 - x) * cross + (1 - x) ** 2 * retain, 0.0))

    def objective(x: float) -> float:
        with_mean = (x * (forget + cross) + (1 - x) * (cross + retain)) / 2
        return with_mean + c * mean_norm * norm(x)

    x = float(minimize_scalar(objective, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-12}).x)
    x = min((0.0, x, 1.0), key=objective)
    scale = c * mean_norm / norm(x) if norm(x) > 0 else 0.0
    return 0.5 + scale * x, 0.5 + scale * (1 - x)


WEIGHTINGS: dict[str, Callable[..., Weights]] = {
    "unilateral": unilateral_surgery,
    "pcgrad": pcgrad,
    "one_sided_pcgrad": one_sided_pcgrad,
    "mgda": mgda,
    "cagrad": cagrad,
    "blur": blur,
    "ngdiff": normalized_sum,
}


def torchjd_weighting(name: str) -> Callable[[Tensor], Weights]:
    """The Gram weighting `name` of TorchJD, such as `UPGrad` or `AlignedMTL`.

    Raises:
        ValueError: when TorchJD is not installed or has no such weighting.
    """
    try:
        import torchjd.aggregation as aggregation
    except ImportError as problem:
        raise ValueError(f"rule: 'torchjd:{name}' needs TorchJD; pip install 'unlearn-hf[surgery]'.") from problem
    found = getattr(aggregation, f"{name}Weighting", None)
    if found is None:
        known = sorted(entry.removesuffix("Weighting") for entry in dir(aggregation) if entry.endswith("Weighting"))
        raise ValueError(f"rule: TorchJD has no weighting {name!r}; it has {', '.join(known)}.")
    try:
        weighting = found()
    except (TypeError, ImportError) as problem:
        raise ValueError(f"rule: TorchJD's {name} cannot be used by name alone ({problem}).") from problem

    def weights(gram: Tensor) -> Weights:
        if gram[1, 1] == 0:  # many rules do not move where one gradient is zero; see `mgda`
            return 1.0, 0.0
        forget, retain = weighting(gram).tolist()
        return forget, retain

    return weights
