from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_hf.evaluation.metrics.statistics import (
    RETRAIN_AUC_MUSE,
    RETRAIN_AUC_OPEN_UNLEARNING,
    attack_auc,
    bootstrap_auc_interval,
    bootstrap_interval,
    harmonic_mean,
    kolmogorov_smirnov,
    privleak_muse,
    privleak_open_unlearning,
)

# Multiples of 1/8 are exact in binary, so the monotone maps below keep distinct values distinct and ties tied.
samples = st.lists(st.integers(-40, 40).map(lambda value: value / 8), min_size=1, max_size=30)


@pytest.mark.parametrize(("n", "floor"), [(40, 1.86e-23), (200, 1.94e-119), (300, 1.48e-179), (400, 1.06e-239)])
def test_ks_floor_is_two_over_binomial(n: int, floor: float) -> None:
    test = kolmogorov_smirnov(np.arange(n), np.arange(n) + n)
    assert test.statistic == 1
    assert test.pvalue == pytest.approx(floor, rel=5e-3)
    assert test.pvalue == pytest.approx(2 / math.comb(2 * n, n), rel=1e-9)


def test_ks_by_hand() -> None:
    # {1, 2, 3} against {2.5, 3.5, 4.5}: at 2 the distribution functions are 2/3 and 0. Of the 20 interleavings of
    # three and three, 12 reach a distance of 2/3 or more.
    test = kolmogorov_smirnov([1, 2, 3], [2.5, 3.5, 4.5])
    assert test.statistic == pytest.approx(2 / 3)
    assert test.pvalue == pytest.approx(12 / 20)


def test_ks_of_identical_samples_is_one() -> None:
    assert kolmogorov_smirnov([0.3, 0.1, 0.2], [0.1, 0.2, 0.3]) == (0.0, 1.0)


@given(samples, samples)
def test_ks_is_invariant_under_monotone_maps_order_and_swap(first: list[float], second: list[float]) -> None:
    expected = kolmogorov_smirnov(first, second)
    maps = [np.exp, lambda x: 1 / (1 + np.exp(x)), lambda x: 3 * x - 1]
    for function in maps:
        mapped = kolmogorov_smirnov(function(np.array(first)), function(np.array(second)))
        assert mapped.pvalue == pytest.approx(expected.pvalue, rel=1e-9)
    assert kolmogorov_smirnov(second, first).pvalue == pytest.approx(expected.pvalue, rel=1e-9)
    assert kolmogorov_smirnov(first[::-1], sorted(second)) == expected


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=9))
def test_harmonic_mean_properties(values: list[float]) -> None:
    mean = harmonic_mean(values)
    assert mean <= np.mean(values) * (1 + 1e-9)
    assert min(values) * (1 - 1e-9) <= mean <= max(values) * (1 + 1e-9)
    assert harmonic_mean([2 * value for value in values]) == pytest.approx(2 * mean)
    assert harmonic_mean([*values, 0.0]) == 0


def test_harmonic_mean_by_hand_and_its_errors() -> None:
    assert harmonic_mean([1, 2, 4]) == pytest.approx(3 / 1.75)
    with pytest.raises(ValueError, match="retain_prob is nan"):
        harmonic_mean({"retain_prob": math.nan, "b": 1})
    with pytest.raises(ValueError, match=r"value 1 is -0.5, and must be a number >= 0"):
        harmonic_mean([1, -0.5])
    with pytest.raises(ValueError, match="no values"):
        harmonic_mean([])


def test_auc_by_hand() -> None:
    # Holdout {2, 3, 3} against forget {1, 2, 4}: of nine pairs holdout wins 1+1+1 over 1, 0+1+1 and a tie over 2.
    assert attack_auc([1, 2, 4], [2, 3, 3]) == pytest.approx((3 + 2.5) / 9)
    assert attack_auc([0, 0], [1, 1]) == 1
    assert attack_auc([1, 1], [1, 1]) == 0.5
    assert attack_auc([0, math.inf], [1, 1]) == 0.5


@given(samples, samples)
def test_auc_is_reversed_by_swapping(first: list[float], second: list[float]) -> None:
    assert attack_auc(first, second) == pytest.approx(1 - attack_auc(second, first))


def test_bootstrap_intervals() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(2, 1, 400)
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)  # seeded
    assert (low, high) != bootstrap_interval(values, seed=1)
    # The percentile interval of a mean is close to the normal one.
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)
    assert bootstrap_interval([0.25]) == (0.25, 0.25)
    forget, holdout = generator.normal(0, 1, 100), generator.normal(1, 1, 80)
    low, high = bootstrap_auc_interval(forget, holdout)
    assert low < attack_auc(forget, holdout) < high
    assert (low, high) == bootstrap_auc_interval(forget, holdout)


@pytest.mark.parametrize("function", [kolmogorov_smirnov, attack_auc, bootstrap_auc_interval])
def test_nan_and_empty_samples_are_errors(function: object) -> None:
    with pytest.raises(ValueError, match=r"NaN in 1 of 3 rows, first at \[1\]"):
        function([1, math.nan, 2], [1, 2])  # type: ignore[operator]
    with pytest.raises(ValueError, match="empty"):
        function([1, 2], [])  # type: ignore[operator]
    with pytest.raises(ValueError, match="must be a vector"):
        function([[1, 2]], [1, 2])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("corpus", "auc", "published"),
    # MUSE's Table 3, with the AUCs of its Figure 4.
    [("news", 0.50, 5.2), ("news", 0.99, 108.1), ("news", 0.98, 105.8), ("news", 1.00, 109.6), ("news", 0.02, -95.8)],
)
def test_privleak_of_published_rows(corpus: str, auc: float, published: float) -> None:
    assert privleak_muse(auc, RETRAIN_AUC_MUSE[corpus]) == pytest.approx(published, abs=1.1)


def test_privleak_orientations() -> None:
    for corpus, constant in RETRAIN_AUC_MUSE.items():
        assert 1 - constant == pytest.approx(RETRAIN_AUC_OPEN_UNLEARNING[corpus], abs=2e-3)
    assert privleak_muse(0.0, 0.4772) == -100
    assert privleak_open_unlearning(0.9991, 0.5236) == pytest.approx(-99.81108310247458, abs=1e-9)
    assert privleak_open_unlearning(0.5) == 0
    # The same pair of AUCs in either orientation gives one value, up to the 1e-10.
    assert privleak_open_unlearning(0.3, 0.6) == pytest.approx(privleak_muse(0.7, 0.4), rel=1e-9)
    with pytest.raises(ValueError, match="must be positive"):
        privleak_muse(0.5, 0)
