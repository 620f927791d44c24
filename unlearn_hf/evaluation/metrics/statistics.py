"""Statistics behind the metrics: Kolmogorov-Smirnov test, harmonic mean, ROC AUC, bootstrap, PrivLeak.

Every function takes plain arrays and refuses NaN with a ValueError, so that no metric becomes NaN silently.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

RETRAIN_AUC_MUSE: dict[str, float] = {"news": 0.4772, "books": 0.5393}
"""AUC of MUSE's retrained models in MUSE's orientation: the constants of its official evaluation (Min-40 %)."""

RETRAIN_AUC_OPEN_UNLEARNING: dict[str, float] = {"news": 0.5236, "books": 0.4592}
"""AUC of the same models as logged by open-unlearning, in its orientation (one minus MUSE's)."""


class KolmogorovSmirnov(NamedTuple):
    """Result of `kolmogorov_smirnov`: the largest distance of the two distribution functions, and its p-value."""

    statistic: float
    pvalue: float


def as_values(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """`values` as a float64 vector.

    Raises:
        ValueError: if it is empty, not a vector, or holds NaN; names `what`, and the first rows at fault.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{what} must be a vector, got shape {array.shape}.")
    if array.size == 0:
        raise ValueError(f"{what} is empty; there is nothing to compute a statistic from.")
    if np.isnan(array).any():
        rows = np.flatnonzero(np.isnan(array))
        raise ValueError(
            f"{what} is NaN in {rows.size} of {array.size} rows, first at {rows[:5].tolist()}. Did the model diverge "
            "(NaN logits), or does a row have no answer token?"
        )
    return array


def kolmogorov_smirnov(first: ArrayLike, second: ArrayLike) -> KolmogorovSmirnov:
    """Two-sided two-sample Kolmogorov-Smirnov test, as TOFU uses it for forget quality.

    This is `scipy.stats.ks_2samp(method="auto")`: exact up to 10 000 values a side. It depends on ranks alone, so any
    strictly increasing map applied to both sides leaves it unchanged, and swapping the sides does too.

    Args:
        first: values of one model, shape `[n]`; infinities are fine.
        second: values of the other model, shape `[m]`.

    Raises:
        ValueError: if a side is empty or holds NaN.

    Source: Maini et al. 2024 (arXiv 2401.06121), section 2.2.2.
    """
    from scipy import stats  # here, as it takes half a second to import

    samples = as_values(first, "first sample"), as_values(second, "second sample")
    with warnings.catch_warnings():
        # For the smallest possible distance rounding lifts the exact value just above 1; scipy then takes the
        # asymptotic one, which is 1, and warns.
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful", RuntimeWarning)
        result = stats.ks_2samp(*samples)
    return KolmogorovSmirnov(float(result.statistic), float(result.pvalue))


def harmonic_mean(values: Sequence[float] | Mapping[str, float]) -> float:
    """Harmonic mean with scipy's rule that one zero makes it zero.

    Args:
        values: non-negative numbers, or name -> number (names appear in errors).

    Raises:
        ValueError: if a value is NaN or negative (scipy would return NaN), or there is none.
    """
    names = list(values) if isinstance(values, Mapping) else [f"value {index}" for index in range(len(values))]
    array = np.asarray(list(values.values()) if isinstance(values, Mapping) else list(values), dtype=np.float64)
    if array.size == 0:
        raise ValueError("the harmonic mean of no values is not defined.")
    for name, value in zip(names, array, strict=True):
        if np.isnan(value) or value < 0:
            raise ValueError(f"the harmonic mean is not defined: {name} is {value}, and must be a number >= 0.")
    if (array == 0).any():
        return 0.0
    from scipy import stats

    return float(stats.hmean(array))


def attack_auc(forget: ArrayLike, holdout: ArrayLike) -> float:
    """ROC AUC of a membership inference attack: P(score of holdout > score of forget), ties count one half.

    Scores are higher for texts that look *less* like members (for instance a loss). Then 1 means that every forgotten
    text is still recognised as a member, 0.5 that the attack cannot tell, and below 0.5 that the forgotten texts look
    stranger than unseen ones. This is open-unlearning's orientation; MUSE reports one minus it.

    Args:
        forget: scores of the forget set, shape `[n]`.
        holdout: scores of texts never trained on, shape `[m]`.

    Raises:
        ValueError: if a side is empty or holds NaN.
    """
    from sklearn.metrics import roc_auc_score

    members, others = as_values(forget, "forget scores"), as_values(holdout, "holdout scores")
    scores = np.concatenate([members, others])
    if not np.isfinite(scores).all():  # sklearn refuses infinities; ranks carry the same order
        from scipy import stats

        scores = stats.rankdata(scores)
    labels = np.concatenate([np.zeros(members.size), np.ones(others.size)])
    return float(roc_auc_score(labels, scores))


def bootstrap_interval(
    values: ArrayLike, resamples: int = 9999, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap confidence interval of a mean.

    Args:
        values: shape `[n]`.
        resamples: number of resamples; MUSE's logger uses 9999.
        confidence: coverage, between 0 and 1.
        seed: seed of the generator; the same seed gives the same interval.

    Returns:
        `(low, high)`, for a single value twice that value.

    Raises:
        ValueError: if `values` is empty or holds NaN.
    """
    array = as_values(values, "bootstrap sample")
    counts = resample_counts(np.random.default_rng(seed), array.size, resamples)
    return _percentiles(counts @ array / array.size, confidence)


def bootstrap_auc_interval(
    forget: ArrayLike, holdout: ArrayLike, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of `attack_auc`, both sets resampled independently.

    Raises:
        ValueError: if a side is empty or holds NaN.
    """
    members, others = as_values(forget, "forget scores"), as_values(holdout, "holdout scores")
    wins = (others[None, :] > members[:, None]) + 0.5 * (others[None, :] == members[:, None])
    generator = np.random.default_rng(seed)
    counts_forget, counts_holdout = (resample_counts(generator, size, resamples) for size in wins.shape)
    areas = ((counts_forget @ wins) * counts_holdout).sum(axis=1) / wins.size
    return _percentiles(areas, confidence)


def resample_counts(generator: np.random.Generator, rows: int, resamples: int) -> NDArray[np.int64]:
    """How often each row is drawn into each resample, shape `[resamples, rows]`.

    The mean over a resample is the mean weighted by these counts: nothing needs to be gathered.
    """
    return generator.multinomial(rows, np.full(rows, 1 / rows), size=resamples)


def _percentiles(statistics: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return float(low), float(high)


def privleak_muse(auc: float, retrain_auc: float) -> float:
    """PrivLeak of MUSE: 100 (AUC - AUC_retrain) / AUC_retrain, both in *MUSE's* orientation.

    That orientation is P(score of holdout < score of forget), one minus `attack_auc`. Good values lie in [-5, 5]; -100
    means that the forget set is fully recognised, large positive values over-unlearning.

    Args:
        auc: one minus `attack_auc` of the model.
        retrain_auc: the same of the retrained model; `RETRAIN_AUC_MUSE` holds the official constants.

    Raises:
        ValueError: if `retrain_auc` is not positive.

    Source: Shi et al. 2024 (arXiv 2407.06460), section 3.1 C3.
    """
    if not retrain_auc > 0:
        raise ValueError(f"retrain_auc is {retrain_auc}; PrivLeak divides by it, so it must be positive.")
    return 100 * (auc - retrain_auc) / retrain_auc


def privleak_open_unlearning(auc: float, reference_auc: float = 0.5) -> float:
    """PrivLeak as open-unlearning computes it from AUCs in *its* orientation (`attack_auc`).

    100 ((1 - AUC) - (1 - AUC_ref)) / ((1 - AUC_ref) + 1e-10): MUSE's value up to the 1e-10.

    Args:
        auc: `attack_auc` of the model.
        reference_auc: `attack_auc` of the retrained model; that framework takes 0.5 where it has no log of it.
    """
    return ((1 - auc) - (1 - reference_auc)) / ((1 - reference_auc) + 1e-10) * 100
