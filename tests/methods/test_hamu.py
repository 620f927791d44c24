"""HAMU against a numerical solution of its problem in the plane, and its end when nothing is feasible."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from scipy.optimize import LinearConstraint, NonlinearConstraint, minimize

from tests.small_runs import build_trainer, largest_difference, parameters
from unlearn_hf.methods import HAMUConfig
from unlearn_hf.methods.hamu import constrained_weights


def solved(objective: numpy.ndarray, constraint: numpy.ndarray, progress: float, radius: float) -> numpy.ndarray:
    """The best direction by a general solver, from several starts."""
    angles = numpy.linspace(0, 2 * math.pi, 8, endpoint=False)
    conditions = [
        LinearConstraint(constraint[None], progress, numpy.inf),
        NonlinearConstraint(lambda d: d @ d, -numpy.inf, radius**2),
    ]
    found = [
        minimize(
            lambda d: -d @ objective,
            radius / 2 * numpy.array([math.cos(angle), math.sin(angle)]),
            method="SLSQP",
            constraints=conditions,
            options={"ftol": 1e-14, "maxiter": 500},
        )
        for angle in angles
    ]
    feasible = [one.x for one in found if one.x @ constraint >= progress - 1e-7 and one.x @ one.x <= radius**2 + 1e-7]
    return max(feasible, key=lambda d: d @ objective)


@pytest.mark.parametrize("angle", [0.3, 1.4, 1.9, 2.8, -2.2])
@pytest.mark.parametrize("share", [-0.6, 0.0, 0.2, 0.7, 0.98])
@pytest.mark.parametrize(("length", "radius"), [(0.4, 1.0), (3.0, 0.2)])
def test_the_closed_form_is_the_numerical_solution(angle: float, share: float, length: float, radius: float) -> None:
    constraint = numpy.array([0.9, 0.5])
    first = math.atan2(0.5, 0.9) + angle
    objective = length * numpy.array([math.cos(first), math.sin(first)])
    progress = share * radius * float(numpy.linalg.norm(constraint))
    weights = constrained_weights(
        objective @ objective, objective @ constraint, constraint @ constraint, progress, radius
    )
    direction = weights[0] * objective + weights[1] * constraint
    assert direction @ constraint >= progress - 1e-9
    assert numpy.linalg.norm(direction) <= radius + 1e-9
    numpy.testing.assert_allclose(direction, solved(objective, constraint, progress, radius), atol=2e-4 * radius)


@pytest.mark.parametrize(
    ("gram", "progress", "expected"),
    [
        ((0.0, 0.0, 4.0), 1.0, (0.0, 0.25)),  # nothing to gain: the shortest step that forgets enough
        ((1.0, -2.0, 4.0), 1.0, (0.0, 0.25)),  # opposite gradients: no way round
        ((1.0, 2.0, 4.0), 1.0, (2.0, 0.0)),  # the same gradient
        ((1.0, 0.0, 0.0), -1.0, (2.0, 0.0)),
        ((0.0, 0.0, 0.0), 0.0, (0.0, 0.0)),
    ],
)
def test_gradients_of_zero_and_parallel_ones(
    gram: tuple[float, float, float], progress: float, expected: tuple[float, float]
) -> None:
    assert constrained_weights(*gram, progress, 2.0) == pytest.approx(expected)


@pytest.mark.parametrize(("case", "constrained", "progress"), [("hamu", "forget", 0.5), ("hamu-u", "retain", -0.1)])
def test_the_step_keeps_length_and_progress(case: str, constrained: str, progress: float, tmp_path: Path) -> None:
    trainer = build_trainer(case, tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=3)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    collected: dict[str, torch.Tensor] = {}

    def watch(scale: float) -> None:
        for name in ("forget", "retain"):
            gradients = trainer.gradients.collected(name)
            collected[name] = torch.cat([value.flatten() for value in gradients]).double()

    def keep(losses: Any) -> None:
        direction = torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).double()
        seen.append((direction, collected[constrained]))

    trainer.gradients_collected = watch  # type: ignore[method-assign]
    trainer.before_step = keep  # type: ignore[method-assign]
    trainer.train()
    assert len(seen) == 3
    for direction, gradient in seen:
        assert direction.norm() == pytest.approx(trainer.args.radius, rel=1e-4)
        assert direction @ gradient >= progress - 1e-4


def test_the_run_ends_before_an_infeasible_step_and_keeps_the_weights(tmp_path: Path) -> None:
    trainer = build_trainer("hamu", tmp_path, progress=1e9, weight_decay=0.1, optim="adamw_torch")
    before = parameters(trainer.model)
    with pytest.warns(UserWarning, match="no update of length 1 lowers the forget loss enough"):
        trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.ended is not None
    assert trainer.ended.startswith("step 1: no update of length 1")
    assert "progress: 1e+09 is out of reach, at most" in trainer.ended
    assert trainer.state.log_history[0]["forget_gradient_norm"] < 1e9
    assert trainer.divergence is None
    assert largest_difference(before, parameters(trainer.model)) == 0.0


def test_defaults_of_the_variants(tmp_path: Path) -> None:
    assert HAMUConfig(output_dir=str(tmp_path)).required_progress() == 1.0
    assert HAMUConfig(output_dir=str(tmp_path), variant="U").required_progress() == 0.0


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "q"},
        {"radius": 0.0},
        {"radius": math.inf},
        {"progress": 0.0},
        {"progress": -1.0},
        {"progress": math.nan, "variant": "U"},
    ],
)
def test_bad_options_are_named(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        HAMUConfig(output_dir=str(tmp_path), **options)
