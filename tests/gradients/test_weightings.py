"""Properties of the two weights, and cross-checks with closed forms and TorchJD."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gradients.pairs import pair, vectors
from unlearn_hf.gradients.weightings import (
    WEIGHTINGS,
    blur,
    cagrad,
    mgda,
    normalized_sum,
    one_sided_pcgrad,
    pcgrad,
    torchjd_weighting,
    unilateral_surgery,
)


def direction(jacobian: torch.Tensor, weights: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(weights, dtype=torch.float64) @ jacobian


@given(vectors, vectors)
@settings(max_examples=200, deadline=None)
def test_ngdiff_is_twice_the_shortest_point_of_the_normalised_gradients(
    first: list[float], second: list[float]
) -> None:
    jacobian = pair(first, second)
    found = direction(jacobian, normalized_sum(jacobian @ jacobian.T))
    normalised = jacobian / jacobian.norm(dim=1, keepdim=True)
    shortest = direction(normalised, mgda(normalised @ normalised.T))
    torch.testing.assert_close(found, 2 * shortest, rtol=1e-6, atol=1e-6)
    assert found.norm() <= 2 + 1e-9


@given(vectors, vectors, st.floats(1e-3, 1e3))
@settings(max_examples=100, deadline=None)
def test_ngdiff_does_not_see_the_length_of_a_gradient(first: list[float], second: list[float], scale: float) -> None:
    jacobian = pair(first, second)
    scaled = jacobian * torch.tensor([[scale], [1.0]])
    torch.testing.assert_close(
        direction(jacobian, normalized_sum(jacobian @ jacobian.T)),
        direction(scaled, normalized_sum(scaled @ scaled.T)),
        rtol=1e-6,
        atol=1e-8,
    )


@given(vectors, vectors)
@settings(max_examples=100, deadline=None)
def test_ngdiff_hurts_neither_objective(first: list[float], second: list[float]) -> None:
    jacobian = pair(first, second)
    products = jacobian @ direction(jacobian, normalized_sum(jacobian @ jacobian.T))
    cosine = (jacobian[0] @ jacobian[1]) / jacobian.norm(dim=1).prod()
    torch.testing.assert_close(products, jacobian.norm(dim=1) * (1 + cosine), rtol=1e-6, atol=1e-6)


@given(vectors, vectors, st.floats(0, 5))
@settings(max_examples=200, deadline=None)
def test_surgery_keeps_its_constraint_and_is_tight_when_active(
    first: list[float], second: list[float], epsilon: float
) -> None:
    jacobian = pair(first, second)
    gram = jacobian @ jacobian.T
    weights = unilateral_surgery(gram, epsilon)
    found = direction(jacobian, weights)
    slack = (jacobian[1] @ found).item() + epsilon
    assert slack >= -1e-6
    if gram[0, 1] >= -epsilon:
        assert weights == (1.0, 0.0)
    else:
        assert slack == pytest.approx(0.0, abs=1e-6)


@given(vectors, vectors)
@settings(max_examples=100, deadline=None)
def test_surgery_is_the_closest_point_that_keeps_the_constraint(first: list[float], second: list[float]) -> None:
    jacobian = pair(first, second)
    found = direction(jacobian, unilateral_surgery(jacobian @ jacobian.T))
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        other = found + 0.3 * torch.randn(3, generator=generator, dtype=torch.float64)
        if jacobian[1] @ other >= 0:
            assert (found - jacobian[0]).norm() <= (other - jacobian[0]).norm() + 1e-9


@given(vectors, vectors)
@settings(max_examples=100, deadline=None)
def test_pcgrad_and_mgda_do_not_conflict(first: list[float], second: list[float]) -> None:
    jacobian = pair(first, second)
    gram = jacobian @ jacobian.T
    for rule in (pcgrad, mgda):
        assert (jacobian @ direction(jacobian, rule(gram)) >= -1e-6).all()


@given(vectors, vectors)
@settings(max_examples=60, deadline=None)
def test_rules_agree_with_torchjd(first: list[float], second: list[float]) -> None:
    pytest.importorskip("torchjd")
    jacobian = pair(first, second)
    gram = jacobian @ jacobian.T
    for name, rule in (("PCGrad", pcgrad), ("MGDA", mgda)):
        theirs = direction(jacobian, torchjd_weighting(name)(gram))
        tolerance = 1e-6 if name == "PCGrad" else 0.05 * float(gram.diagonal().sqrt().max())  # theirs iterates
        torch.testing.assert_close(direction(jacobian, rule(gram)), theirs, rtol=1e-5, atol=tolerance)


@given(vectors, vectors)
@settings(max_examples=60, deadline=None)
def test_cagrad_stays_near_the_mean_and_helps_the_worse_objective(first: list[float], second: list[float]) -> None:
    jacobian = pair(first, second)
    found = direction(jacobian, cagrad(jacobian @ jacobian.T))
    mean = jacobian.mean(0)
    assert (found - mean).norm() <= 0.4 * mean.norm() + 1e-6
    assert (jacobian @ found).min() >= (jacobian @ mean).min() - 1e-6


@given(vectors, vectors, st.floats(0.1, 3), st.floats(0, 3))
@settings(max_examples=100, deadline=None)
def test_one_sided_pcgrad_projects_the_forget_gradient_alone(
    first: list[float], second: list[float], forget: float, retain: float
) -> None:
    jacobian = pair(first, second)
    g_f, g_r = jacobian
    projected = g_f - min((g_f @ g_r).item(), 0.0) / (g_r @ g_r) * g_r
    found = direction(jacobian, one_sided_pcgrad(jacobian @ jacobian.T, forget, retain))
    torch.testing.assert_close(found, forget * projected + retain * g_r, rtol=1e-9, atol=1e-9)


def test_blur_closed_form() -> None:
    gram = torch.tensor([[4.0, -2.0], [-2.0, 9.0]], dtype=torch.float64)
    assert blur(gram) == (1.5, 1.0)


@pytest.mark.parametrize("name", list(WEIGHTINGS))
def test_a_gradient_of_zero_gives_finite_weights(name: str) -> None:
    for gram in (torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])):
        assert all(map(math.isfinite, WEIGHTINGS[name](gram.double())))


def test_unknown_torchjd_rule_names_the_known_ones() -> None:
    pytest.importorskip("torchjd")
    with pytest.raises(ValueError, match="UPGrad"):
        torchjd_weighting("Nonsense")
