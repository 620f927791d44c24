"""GDR-GMA against its closed form, and its projection against TorchJD."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gradients.pairs import pair, vectors
from tests.small_runs import build_trainer
from unlearn_hf.gradients.weightings import pcgrad, torchjd_weighting
from unlearn_hf.methods import GDRGMAConfig
from unlearn_hf.methods.gdr_gma import magnitudes, rectified_weights


@given(vectors, vectors, st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_each_gradient_loses_its_part_against_the_other(first: list[float], second: list[float], share: float) -> None:
    jacobian = pair(first, second)
    forget, retain = jacobian
    cross = forget @ retain
    if cross < 0:
        rectified = torch.stack(
            [forget - cross / (retain @ retain) * retain, retain - cross / (forget @ forget) * forget]
        )
        assert abs(rectified[0] @ retain) < 1e-6
        assert abs(rectified[1] @ forget) < 1e-6
    else:
        rectified = jacobian
    found = rectified_weights((jacobian @ jacobian.T).unsqueeze(0), (share, 1 - share))[0] @ jacobian
    torch.testing.assert_close(found, share * rectified[0] + (1 - share) * rectified[1], rtol=1e-6, atol=1e-6)


@given(vectors, vectors)
@settings(max_examples=60, deadline=None)
def test_with_equal_magnitudes_each_tensor_is_pcgrad(first: list[float], second: list[float]) -> None:
    grams = torch.stack([(j @ j.T) for j in (pair(first, second), pair(second, [-x for x in first]))])
    found = rectified_weights(grams, (1.0, 1.0))
    for gram, weights in zip(grams, found, strict=True):
        torch.testing.assert_close(weights, torch.tensor(pcgrad(gram), dtype=torch.float64))
        pytest.importorskip("torchjd")
        theirs = torch.tensor(torchjd_weighting("PCGrad")(gram), dtype=torch.float64)
        torch.testing.assert_close(weights, theirs, rtol=1e-5, atol=1e-6)


def test_gradients_of_zero_are_left_alone() -> None:
    assert rectified_weights(torch.zeros(2, 2, 2, dtype=torch.float64), (0.3, 0.7)).tolist() == [[0.3, 0.7]] * 2


@pytest.mark.parametrize(
    ("retain_loss", "expected"),
    [(0.02, 0.5), (0.0, 1 / (1 + math.exp(-2))), (0.05, 1 / (1 + math.exp(3))), (30.0, 0.0)],
)
def test_magnitudes_are_those_of_the_released_code(retain_loss: float, expected: float) -> None:
    """`lambda = 1 / (1 + exp(100 (l_r - 0.02)))`, forget lambda, retain 1 - lambda."""
    forget, retain = magnitudes(retain_loss, level=0.02, slope=100.0)
    assert forget == pytest.approx(expected, rel=1e-12, abs=1e-300)
    assert retain == pytest.approx(1 - expected, rel=1e-12)


def test_the_trainer_rectifies_each_tensor_by_itself(tmp_path: Path) -> None:
    trainer = build_trainer("gdr-gma", tmp_path, max_steps=1, forget_seed=2, retain=12)
    collected: dict[str, list[Any]] = {}

    def watch(scale: float) -> None:
        for name in ("forget", "retain"):
            collected[name] = [value.double().flatten() for value in trainer.gradients.collected(name)]

    def check(losses: Any) -> None:
        # the first level is this loss plus 0.02
        forget_weight = 1 / (1 + math.exp(-5.0 * 0.02))
        for parameter, g_f, g_r in zip(trainer.model.parameters(), *collected.values(), strict=True):
            cross = (g_f @ g_r).clamp(max=0.0)
            expected = forget_weight * (g_f - cross / (g_r @ g_r) * g_r)
            expected += (1 - forget_weight) * (g_r - cross / (g_f @ g_f) * g_f)
            torch.testing.assert_close(parameter.grad.flatten().double(), expected, rtol=1e-4, atol=1e-7)
        collected["checked"] = []

    trainer.gradients_collected = watch  # type: ignore[method-assign]
    trainer.before_step = check  # type: ignore[method-assign]
    trainer.train()
    assert "checked" in collected
    line = trainer.state.log_history[0]
    assert line["forget_weight"] + line["retain_weight"] == pytest.approx(1.0)


def test_it_forgets_below_the_level_and_repairs_above(tmp_path: Path) -> None:
    weights = []
    for level in (3.0, 9.0):
        trainer = build_trainer("gdr-gma", tmp_path, largest_retain_loss=level, magnitude_slope=100.0, max_steps=1)
        trainer.train()
        weights.append(trainer.state.log_history[0]["forget_weight"])
    assert weights[0] < 1e-6
    assert weights[1] > 1 - 1e-6


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"magnitude_slope": 0.0}, "magnitude_slope"),
        ({"largest_retain_loss": 0.0}, "largest_retain_loss"),
        ({"retain_tolerance": float("inf")}, "retain_tolerance"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{field}:"):
        GDRGMAConfig(output_dir=str(tmp_path), **options)
