"""leak@k by enumeration, and bounds that hold in simulation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom

from unlearn_hf.audit.leakage import deviation_bound, leak_at_k, leak_probability_bound, mean_bound
from unlearn_hf.audit.sampling import powers_of_two


def test_leak_at_k_is_the_share_of_all_choices_with_a_leak() -> None:
    for samples in range(1, 8):
        for leaks in range(samples + 1):
            drawn = [True] * leaks + [False] * (samples - leaks)
            for k in range(1, samples + 1):
                choices = [any(each) for each in combinations(drawn, k)]
                assert leak_at_k(leaks, samples, k) == pytest.approx(np.mean(choices), abs=1e-12)


DRAWS: dict[str, tuple[Callable[[np.random.Generator], np.ndarray], float, float]] = {
    "coin": (lambda g: (g.random(64) < 0.1).astype(float), 0.1, 0.3),
    "even": (lambda g: g.random(64), 0.5, 12**-0.5),
    "rare": (lambda g: np.where(g.random(64) < 0.02, 0.9, 0.05), 0.067, 0.85 * (0.02 * 0.98) ** 0.5),
    "constant": (lambda g: np.full(64, 0.3), 0.3, 0.0),
}


@pytest.mark.parametrize("name", DRAWS)
def test_bounds_hold_in_99_of_100_draws(name: str) -> None:
    draw, mean, deviation = DRAWS[name]
    generator = np.random.default_rng(0)
    samples = [draw(generator) for _ in range(2000)]
    assert np.mean([mean_bound(each) >= mean - 1e-12 for each in samples]) >= 0.99
    assert np.mean([deviation_bound(each) >= deviation - 1e-12 for each in samples]) >= 0.99


@pytest.mark.parametrize("chance", [0.01, 0.03, 0.1, 0.5, 0.9])
def test_the_leak_bound_holds_in_99_of_100_draws(chance: float) -> None:
    counts = np.random.default_rng(0).binomial(64, chance, size=2000)
    assert np.mean([leak_probability_bound(int(count), 64) >= chance for count in counts]) >= 0.99


@pytest.mark.parametrize("alpha", [0.005, 0.01, 0.1])
def test_the_leak_bound_holds_as_often_as_it_says_for_every_chance(alpha: float) -> None:
    bounds = np.array([leak_probability_bound(count, 32, alpha) for count in range(33)])
    for chance in np.linspace(0.001, 0.999, 499):
        assert binom.pmf(np.arange(33), 32, chance)[bounds >= chance].sum() >= 1 - alpha - 1e-12


def test_bounds_are_of_use() -> None:
    zeros = np.zeros(128)
    assert mean_bound(zeros) == pytest.approx((np.log(100) / 256) ** 0.5)
    assert leak_probability_bound(0, 128) == pytest.approx(1 - 0.005 ** (1 / 128))
    assert leak_probability_bound(64, 64) == 1
    assert mean_bound([0.2] * 4000) < 0.24


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: leak_at_k(1, 4, 5), "k: 5 is not from 1 to the 4 samples"),
        (lambda: leak_at_k(5, 4, 1), "leaks: 5"),
        (lambda: mean_bound([]), "at least one sample"),
        (lambda: mean_bound([1.2]), "every sample in"),
        (lambda: deviation_bound([0.5], alpha=0.9), "alpha: 0.9"),
    ],
)
def test_bad_input(call: Callable[[], float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_numbers_of_samples_that_are_looked_at() -> None:
    assert powers_of_two(1) == (1,)
    assert powers_of_two(12) == (1, 2, 4, 8, 12)
