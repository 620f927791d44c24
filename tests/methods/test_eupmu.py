"""EUPMU against the formulas it comes from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_runs import build_trainer
from unlearn_hf.gradients.weightings import unilateral_surgery
from unlearn_hf.methods import EUPMUConfig
from unlearn_hf.methods.dual_variable import DualVariable
from unlearn_hf.training.optimizer_step import Losses
from unlearn_hf.training.unlearning import UnlearningTrainer


def test_adam_moves_the_first_step_by_exactly_its_rate() -> None:
    for slack in (-1e-6, -1.0, -50.0):
        dual = DualVariable(0.0, "adam", 0.3, weight_decay=0.0)
        dual.descend(slack)
        assert dual.value == pytest.approx(0.3, rel=1e-2)


def test_sgd_is_projected_dual_ascent() -> None:
    dual = DualVariable(0.5, "sgd", 2.0)
    for slack, expected in ((0.1, 0.3), (1.0, 0.0), (-0.2, 0.4)):
        dual.descend(slack)
        assert dual.value == pytest.approx(expected, abs=1e-12)


def test_adam_matches_its_formula_in_float64_with_projection() -> None:
    """Released code: grad = slack + gamma w, Adam(beta1 0.9, beta2 0.999, eps 1e-8), then clamp."""
    dual = DualVariable(0.2, "adam", 0.3, weight_decay=0.01)
    w, m, v = 0.2, 0.0, 0.0
    generator = torch.Generator().manual_seed(0)
    for t in range(1, 40):
        slack = torch.randn((), generator=generator, dtype=torch.float64).item()
        dual.descend(slack)
        gradient = slack + 0.01 * w
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w = max(0.0, w - 0.3 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8))
        assert dual.value == pytest.approx(w, abs=1e-12)


def test_state_survives_a_round_trip() -> None:
    first, second = (DualVariable(0.2, "adam", 0.3, 0.01) for _ in range(2))
    for slack in (0.3, -1.0, 0.2):
        first.descend(slack)
    second.load_state_dict(first.state_dict())
    for slack in (-0.4, 0.1):
        first.descend(slack)
        second.descend(slack)
    assert first.value == second.value


def test_implicit_dual_converges_to_the_explicit_one_on_a_quadratic() -> None:
    """l_f linear, l_r a parabola: descent on l_f + dual l_r comes to hold <g_r, d> = -epsilon."""
    epsilon, rate = 0.1, 1e-3
    g_f = torch.tensor([1.0, -0.5], dtype=torch.float64)
    curvature = torch.tensor([0.3, 0.2], dtype=torch.float64)
    theta = torch.tensor([-3.0, 2.0], dtype=torch.float64)
    retain = lambda x: 0.5 * (curvature * x * x).sum()  # noqa: E731
    dual = DualVariable(0.0, "sgd", 0.05)
    gap = []
    for _ in range(600):
        g_r = curvature * theta
        after = theta - rate * (g_f + dual.value * g_r)
        gram = torch.stack([torch.stack([g_f @ g_f, g_f @ g_r]), torch.stack([g_f @ g_r, g_r @ g_r])])
        gap.append(abs(dual.value - unilateral_surgery(gram, epsilon)[1]))
        dual.descend(((retain(theta) - retain(after)) / rate).item() + epsilon)
        theta = after
    assert unilateral_surgery(gram, epsilon)[1] > 0.3
    assert gap[0] > 0.3
    assert max(gap[-50:]) < 0.02


def test_dual_follows_the_sign_of_the_first_order_damage(tmp_path: Path) -> None:
    """With small SGD steps, the dual rises exactly when <g_r, d> < 0."""
    seen = []
    for seed in range(6):
        trainer = build_trainer(
            "eupmu",
            tmp_path,
            max_steps=1,
            learning_rate=1e-3,
            dual_optimizer="sgd",
            dual_signal="raw",
            dual_weight_decay=0.0,
            per_learning_rate=True,
            initial_dual=0.02 + 0.15 * seed,
            seed=seed,
            per_device_train_batch_size=12,
            forget_seed=1 if seed % 2 else 2,  # seed 2: forget what is to be retained, so that the two conflict
            retain=12,
        )
        before = trainer.dual.value
        products = {}

        original = trainer.after_step

        def after_step(losses, after, trainer=trainer, original=original, products=products):  # type: ignore[no-untyped-def]
            batch = trainer._prepare_inputs(trainer.window.batches[0])
            direction = [p.grad.clone() for p in trainer.model.parameters()]
            trained = list(trainer.model.parameters())
            with torch.enable_grad():
                loss = trainer.objective_loss(trainer.model, "retain", batch)
                gradient = torch.autograd.grad(loss, trained)
            products["retain"] = sum((a * b).sum() for a, b in zip(gradient, direction, strict=True)).item()
            original(losses, after)

        trainer.after_step = after_step  # type: ignore[method-assign]
        trainer.train()
        seen.append((products["retain"], trainer.dual.value - before))
    assert {product > 0 for product, _ in seen} == {True, False}
    for product, change in seen:
        assert math.copysign(1, change) == -math.copysign(1, product), seen


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"scalarization": "log", "forget_loss": "ga"}, "scalarization"),
        ({"retain_loss": "kl"}, "dual_signal"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"initial_dual": -1.0}, "initial_dual"),
        ({"dual_learning_rate": 0.0}, "dual_learning_rate"),
        ({"constraint": "volume"}, "constraint"),
        ({"constraint": "level", "per_learning_rate": True}, "per_learning_rate"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], field: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=field):
        EUPMUConfig(output_dir=str(tmp_path), **options)  # type: ignore[arg-type]


def test_a_dual_of_zero_still_sees_the_retain_loss(tmp_path: Path) -> None:
    trainer = build_trainer("eupmu-level-fast", tmp_path, initial_dual=0.0, epsilon=-0.02)
    trainer.train()
    assert math.isfinite(trainer.dual.value)
    assert trainer.dual.value > 0


@pytest.mark.parametrize("reevaluate", [True, False])
def test_a_change_is_divided_by_the_rate_of_the_step_that_made_it(reevaluate: bool, tmp_path: Path) -> None:
    """Also in the fast form, which sees the change one step later, at another rate; also after resuming."""
    options: dict[str, Any] = {"reevaluate": reevaluate, "per_learning_rate": True, "dual_signal": "raw"}
    options |= {"dual_optimizer": "sgd", "dual_learning_rate": 0.1, "epsilon": -5.0}
    options |= {"lr_scheduler_type": "linear", "max_steps": 6, "save_strategy": "steps", "save_steps": 3}

    def watched(folder: Path) -> tuple[UnlearningTrainer, list[Any]]:
        trainer, seen = build_trainer("eupmu", folder, **options), []
        original = trainer.after_step

        def after_step(before: Losses, after: Losses) -> None:
            original(before, after)
            seen.append((before.retain, after.retain, trainer._get_learning_rate(), trainer.dual.value))

        trainer.after_step = after_step  # type: ignore[method-assign]
        return trainer, seen

    trainer, seen = watched(tmp_path)
    trainer.train()
    dual = trainer.args.initial_dual
    for step, (before, after, rate, found) in enumerate(seen):
        if reevaluate:
            dual = max(0.0, dual - 0.1 * ((before - after) / rate - 5.0))
        elif step > 0:
            dual = max(0.0, dual - 0.1 * ((seen[step - 1][0] - before) / seen[step - 1][2] - 5.0))
        assert found == pytest.approx(dual, rel=1e-9)
    assert len({rate for _, _, rate, _ in seen}) == 6
    resumed, again = watched(tmp_path)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert again == seen[3:]


@pytest.mark.parametrize(("optimizer", "decay"), [("adam", 0.01), ("sgd", 0.0)])
def test_the_dual_variable_decays_under_adam_only(optimizer: str, decay: float, tmp_path: Path) -> None:
    assert EUPMUConfig(output_dir=str(tmp_path), dual_optimizer=optimizer).dual_weight_decay == decay
    assert (
        EUPMUConfig(output_dir=str(tmp_path), dual_optimizer=optimizer, dual_weight_decay=0.3).dual_weight_decay == 0.3
    )
