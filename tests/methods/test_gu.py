"""GU against a float64 reference with Adam's own moments, before they exist, and with other optimizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_runs import build_trainer, largest_difference, parameters
from unlearn_hf.gradients.buffers import GradientBuffers
from unlearn_hf.methods import GUConfig


def flat(gradients: Any) -> torch.Tensor:
    return torch.cat([value.flatten() for value in gradients]).double()


@pytest.mark.parametrize("options", [{}, {"metric_epsilon": 1e-3}, {"optim": "adamw_torch_fused"}])
def test_every_step_is_orthogonal_in_the_metric_of_adam(options: dict[str, Any], tmp_path: Path) -> None:
    """Moments kept beside the run in float64, from what the optimizer was given."""
    epsilon = options.get("metric_epsilon", 1e-8)
    trainer = build_trainer(
        "gu",
        tmp_path,
        **{"optim": "adamw_torch", "learning_rate": 1e-3, "max_steps": 4, "retain_weight": 0.5} | options,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=3,
        forget=4,
        retain=8,
    )
    collected: dict[str, torch.Tensor] = {}
    moment = torch.zeros(())
    steps = 0
    original = trainer.gradients_collected

    def watch(scale: float) -> None:
        collected.update({name: flat(trainer.gradients.collected(name)) for name in ("forget", "retain")})
        original(scale)

    def check(losses: Any) -> None:
        nonlocal moment, steps
        g_f, g_r = collected["forget"], collected["retain"]
        metric = 1 / ((moment / (1 - 0.999**steps)).sqrt() + epsilon) if steps else torch.ones_like(g_f)
        direction = flat(parameter.grad for parameter in trainer.model.parameters())
        expected = g_f - (metric * g_f) @ g_r / ((metric * g_r) @ g_r) * g_r + 0.5 * g_r
        assert (direction - expected).norm() <= 1e-4 * expected.norm()
        forgetting = direction - 0.5 * g_r
        lengths = ((metric * g_f) @ g_f).sqrt() * ((metric * g_r) @ g_r).sqrt()
        assert abs((metric * forgetting) @ g_r) <= 1e-4 * lengths
        moment = 0.999 * moment + 0.001 * direction**2
        steps += 1

    trainer.gradients_collected = watch  # type: ignore[method-assign]
    trainer.before_step = check  # type: ignore[method-assign]
    trainer.train()
    assert steps == 4


def test_the_forgetting_part_of_an_adam_step_keeps_the_retain_loss_to_first_order(tmp_path: Path) -> None:
    """The preconditioned direction against the retain gradient: the point of the metric."""
    trainer = build_trainer("gu-adam", tmp_path, retain_weight=0.0, metric_epsilon=None)
    products: list[float] = []
    collected: dict[str, torch.Tensor] = {}
    original = trainer.gradients_collected

    def watch(scale: float) -> None:
        collected["retain"] = flat(trainer.gradients.collected("retain"))
        original(scale)

    def check(losses: Any) -> None:
        metric = trainer._metric()
        moved = flat(
            parameter.grad * weights if (weights := metric(parameter)) is not None else parameter.grad
            for parameter in trainer.model.parameters()
        )
        products.append(float(moved @ collected["retain"] / (moved.norm() * collected["retain"].norm())))

    trainer.gradients_collected = watch  # type: ignore[method-assign]
    trainer.before_step = check  # type: ignore[method-assign]
    trainer.train()
    assert len(products) == 3
    assert max(map(abs, products)) < 1e-5


def test_with_sgd_and_conflicting_sets_it_is_unilateral_surgery(tmp_path: Path) -> None:
    results = []
    for case, options in (("gu", {"retain_weight": 0.0}), ("surgery", {"forget_loss": "ga"})):
        trainer = build_trainer(case, tmp_path, forget_seed=2, retain=12, **options)  # the two sets conflict
        trainer.train()
        assert all(line["gradient_cosine"] < 0 for line in trainer.state.log_history[:3])
        results.append(parameters(trainer.model))
    assert largest_difference(*results) < 1e-6


def test_weighted_products(tmp_path: Path) -> None:
    values = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2))]
    buffers = GradientBuffers(values)
    for name, factor in (("forget", 1.0), ("retain", -2.0)):
        with buffers.collect(name):
            (factor * (values[0] * torch.tensor([1.0, 2.0, 3.0])).sum() + values[1].sum()).backward()
    weights = torch.tensor([1.0, 10.0, 100.0])
    found = buffers.grams(2.0, lambda parameter: weights if parameter is values[0] else None)
    product = (1 + 40 + 900) / 4
    assert found[0].tolist() == [[product, -2 * product], [-2 * product, 4 * product]]
    assert found[1].tolist() == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("optim", {"optim": "adafactor"}),
        ("metric_epsilon", {"metric_epsilon": 0.0}),
        ("metric_epsilon", {"metric_epsilon": 1e-3, "optim": "sgd"}),
        ("forget_weight", {"forget_weight": -1.0}),
    ],
)
def test_bad_options_are_named(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{name}"):
        GUConfig(output_dir=str(tmp_path), **options)


def test_an_optimizer_of_ones_own_without_such_a_moment_is_refused(tmp_path: Path) -> None:
    trainer = build_trainer("gu", tmp_path)
    trainer.optimizer = torch.optim.Adagrad(trainer.model.parameters())
    with pytest.raises(ValueError, match="optimizers: Adagrad"):
        trainer.train()
