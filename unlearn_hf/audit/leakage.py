"""What samples of a model's answers say about others not drawn: leak@k, and bounds that hold with a confidence."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

ALPHA = 0.01
"""Chance that a bound on mean or deviation does not hold, at most; these hold far more often."""
LEAK_ALPHA = ALPHA / 2
"""The bound on a leak is nearly exact, so that at `ALPHA` it would hold in 99 of 100 draws on average only."""


def leak_at_k(leaks: int, samples: int, k: int) -> float:
    """Unbiased estimate of the chance that at least one of `k` samples leaks: `1 - C(n - c, k) / C(n, k)`.

    Args:
        leaks: samples that leak, `c`.
        samples: samples drawn, `n`.
        k: at most `n`.

    Raises:
        ValueError: for a `k` that is not from 1 to `n`, or more leaks than samples.

    Source:
        arXiv 2511.04934, equation 2 (the estimator of pass@k, Chen et al. 2021, arXiv 2107.03374).
    """
    if not 0 <= leaks <= samples:
        raise ValueError(f"leaks: {leaks} is not from 0 to the {samples} samples.")
    if not 1 <= k <= samples:
        raise ValueError(f"k: {k} is not from 1 to the {samples} samples; draw more, or give a smaller k.")
    return 1 - math.comb(samples - leaks, k) / math.comb(samples, k)


def leak_probability_bound(leaks: int, samples: int, alpha: float = LEAK_ALPHA) -> float:
    """Upper bound on the chance that a sample leaks, which holds with probability `1 - alpha` (Clopper-Pearson).

    Source:
        Scholten et al. 2025, arXiv 2410.03523, the binary metric.
    """
    _check(alpha)
    return 1.0 if leaks == samples else float(beta.ppf(1 - alpha, leaks + 1, samples - leaks))


def mean_bound(values: ArrayLike, alpha: float = ALPHA) -> float:
    """Upper bound on the expected value of a measure in [0, 1], whatever its distribution.

    The integral of one minus the distribution function, which lies at most `sqrt(ln(1 / alpha) / 2n)` below the
    empirical one (Dvoretzky-Kiefer-Wolfowitz, with Massart's constant).

    Args:
        values: of the samples, shape `[n]`.
        alpha: chance that the bound does not hold.

    Source:
        Scholten et al. 2025, arXiv 2410.03523, the expectation bound.
    """
    found = _sorted(values, alpha)
    return _highest_mean(found, math.sqrt(math.log(1 / alpha) / (2 * len(found))))


def deviation_bound(values: ArrayLike, alpha: float = ALPHA) -> float:
    """Upper bound on the standard deviation of a measure in [0, 1], whatever its distribution.

    From the two-sided band around the empirical distribution: the variance is at most the highest mean of squares
    less the square of the lowest mean, and never above 1/4.

    Args:
        values: of the samples, shape `[n]`.
        alpha: chance that the bound does not hold.

    Source:
        after Scholten et al. 2025, arXiv 2410.03523, the standard deviation bound, in a simpler form.
    """
    found = _sorted(values, alpha)
    width = math.sqrt(math.log(2 / alpha) / (2 * len(found)))
    lowest = 1 - _highest_mean(np.sort(1 - found), width)
    return math.sqrt(min(0.25, max(0.0, _highest_mean(found**2, width) - lowest**2)))


def _highest_mean(ordered: NDArray[np.float64], width: float) -> float:
    """Largest mean of a distribution on [0, 1] whose function is at most `width` below the empirical one."""
    ends = np.append(ordered, 1.0)
    below = np.clip(np.arange(1, len(ordered) + 1) / len(ordered) - width, 0, 1)
    return float(1 - (below * np.diff(ends)).sum())


def _sorted(values: ArrayLike, alpha: float) -> NDArray[np.float64]:
    _check(alpha)
    found = np.sort(np.asarray(values, dtype=np.float64))
    if found.size == 0 or not (found[0] >= 0 and found[-1] <= 1):
        raise ValueError("values: bounds need at least one sample, and every sample in [0, 1].")
    return found


def _check(alpha: float) -> None:
    if not 0 < alpha <= 0.5:
        raise ValueError(f"alpha: {alpha} is not in (0, 0.5]; give 0.01.")
