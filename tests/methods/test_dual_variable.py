"""What holds for the dual variable whatever it is fed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_hf.methods.dual_variable import DualVariable

NUMBERS = st.floats(-10, 10, allow_nan=False)
OPTIMIZERS = st.sampled_from(["adam", "sgd"])


@settings(deadline=None, max_examples=50)
@given(
    slacks=st.lists(st.floats(width=32), min_size=1, max_size=30),
    optimizer=OPTIMIZERS,
    rate=st.floats(1e-3, 10),
    decay=st.floats(0, 1),
    proportional=st.floats(0, 20),
    maximum=st.none() | st.floats(1, 30),
)
def test_it_stays_finite_and_between_its_bounds(
    slacks: list[float], optimizer: str, rate: float, decay: float, proportional: float, maximum: float | None
) -> None:
    """Infinite and undefined slacks included: they move nothing."""
    dual = DualVariable(1.0, optimizer, rate, decay, proportional, maximum)
    for slack in slacks:
        before = (dual.integral, dual.value)
        dual.descend(slack)
        assert math.isfinite(slack) or (dual.integral, dual.value) == before
        for value in (dual.integral, dual.value):
            assert 0 <= value <= (math.inf if maximum is None else maximum)
            assert math.isfinite(value)


@settings(deadline=None, max_examples=50)
@given(slack=NUMBERS.filter(lambda x: abs(x) > 1e-3), optimizer=OPTIMIZERS, proportional=st.floats(0, 20))
def test_it_rises_with_a_violation_and_falls_with_room(slack: float, optimizer: str, proportional: float) -> None:
    dual = DualVariable(5.0, optimizer, 0.1, proportional=proportional)
    dual.descend(slack)
    assert dual.value < 5.0 if slack > 0 else dual.value > 5.0


@settings(deadline=None, max_examples=50)
@given(
    g_f=st.tuples(NUMBERS, NUMBERS, NUMBERS),
    theta=st.tuples(NUMBERS, NUMBERS, NUMBERS),
    curvature=st.tuples(*[st.floats(0.1, 3)] * 3),
    initial=st.floats(0.5, 3),
)
def test_on_a_parabola_it_moves_against_the_first_order_gain(
    g_f: tuple[float, ...], theta: tuple[float, ...], curvature: tuple[float, ...], initial: float
) -> None:
    """For a small step along d = g_f + dual g_r its change has the sign of -<g_r, d>."""
    rate = 1e-5
    g_r = [c * x for c, x in zip(curvature, theta, strict=True)]
    direction = [f + initial * r for f, r in zip(g_f, g_r, strict=True)]
    product = math.fsum(r * d for r, d in zip(g_r, direction, strict=True))
    if abs(product) < 1e-1 + 1e-3 * math.fsum(d * d for d in direction):
        return  # the second order of the step may decide
    dual = DualVariable(initial, "sgd", 1e-3)
    dual.descend(_change(theta, direction, curvature, rate) / rate)
    assert math.copysign(1, dual.value - initial) == -math.copysign(1, product)


@settings(deadline=None, max_examples=25)
@given(
    g_f=st.tuples(NUMBERS, NUMBERS),
    theta=st.tuples(st.floats(1, 5), st.floats(-5, -1)),
    curvature=st.tuples(*[st.floats(0.2, 2)] * 2),
    epsilon=st.floats(-0.5, 0.5),
)
def test_on_a_parabola_it_converges_to_the_explicit_multiplier(
    g_f: tuple[float, ...], theta: tuple[float, ...], curvature: tuple[float, ...], epsilon: float
) -> None:
    """lambda* = [(-<g_r, g_f> - epsilon) / ||g_r||^2]_+, proposition 3.2."""
    rate, steps = 1e-6, 60
    square = math.fsum((c * x) ** 2 for c, x in zip(curvature, theta, strict=True))
    dual = DualVariable(0.0, "sgd", 0.5 / square)
    for _ in range(steps):
        g_r = [c * x for c, x in zip(curvature, theta, strict=True)]
        direction = [f + dual.value * r for f, r in zip(g_f, g_r, strict=True)]
        dual.descend(_change(theta, direction, curvature, rate) / rate + epsilon)
        theta = tuple(x - rate * d for x, d in zip(theta, direction, strict=True))
    cross = math.fsum(r * f for r, f in zip(g_r, g_f, strict=True))
    explicit = max(0.0, (-cross - epsilon) / math.fsum(r * r for r in g_r))
    assert dual.value == pytest.approx(explicit, rel=1e-2, abs=1e-2)


def _change(theta: tuple[float, ...], direction: list[float], curvature: tuple[float, ...], rate: float) -> float:
    """Fall of `sum c x^2 / 2` in the step `x - rate d`, without cancellation."""
    return math.fsum(
        rate * c * x * d - 0.5 * c * (rate * d) ** 2 for x, d, c in zip(theta, direction, curvature, strict=True)
    )


def test_the_proportional_part_is_gone_with_the_violation() -> None:
    """Constant violation for 20 steps, then just kept: the sum alone stays where it was, the other comes down."""
    late, quick = DualVariable(0.0, "sgd", 0.1), DualVariable(0.0, "sgd", 0.02, proportional=2.0)
    for dual in (late, quick):
        for _ in range(20):
            dual.descend(-1.0)
        dual.descend(0.0)
    assert late.value == pytest.approx(2.0)
    assert quick.value == pytest.approx(0.4)
