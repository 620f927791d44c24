"""SAGO against an element-by-element loop, and where its gradients come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_runs import build_trainer
from unlearn_hf.gradients.buffers import GradientBuffers
from unlearn_hf.methods import SAGOConfig
from unlearn_hf.methods.sago import FORMS, sign_gated


def by_hand(forget: float, retain: float, weights: tuple[float, float], form: str) -> float:
    if (forget > 0 and retain < 0) or (forget < 0 and retain > 0):
        return weights[1] * retain
    return weights[0] * forget + (weights[1] * retain if form == "prefer_retain" else 0.0)


@pytest.mark.parametrize("form", FORMS)
def test_every_pair_of_signs_zero_and_values_whose_product_underflows(form: str) -> None:
    values = [-3.0, -1e-30, 0.0, 1e-30, 2.0]
    forget, retain = torch.cartesian_prod(torch.tensor(values), torch.tensor(values)).unbind(1)
    found = sign_gated(forget, retain, (0.5, 2.0), form)
    expected = [by_hand(f, r, (0.5, 2.0), form) for f in values for r in values]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("case", ["sago", "sago-prefer-retain-cpu"])
def test_the_rule_sees_whole_gradients_of_the_step(case: str, tmp_path: Path) -> None:
    """Of an incomplete window of three too: what is gated is the sum, not each micro-batch."""
    trainer = build_trainer(
        case, tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=3, forget=4, max_steps=4, retain=8
    )
    collected: dict[str, list[torch.Tensor]] = {}
    checked = 0

    def watch(scale: float) -> None:
        for name in ("forget", "retain"):
            collected[name] = [value.double() for value in trainer.gradients.collected(name)]

    def check(losses: Any) -> None:
        nonlocal checked
        for parameter, g_f, g_r in zip(trainer.model.parameters(), *collected.values(), strict=True):
            weights = trainer.args.forget_weight, trainer.args.retain_weight
            expected = sign_gated(g_f, g_r, weights, trainer.args.form)
            torch.testing.assert_close(parameter.grad.double(), expected, rtol=1e-6, atol=1e-12)
        checked += 1

    trainer.gradients_collected = watch  # type: ignore[method-assign]
    trainer.before_step = check  # type: ignore[method-assign]
    trainer.train()
    assert checked == 4


def test_a_missing_gradient_is_zero_and_a_parameter_without_any_keeps_none() -> None:
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    buffers = GradientBuffers(parameters)
    with buffers.collect("forget"):
        (2 * parameters[0].sum() + parameters[1].sum()).backward()
    with buffers.collect("retain"):
        (-3 * parameters[0].sum()).backward()
    buffers.combine_elementwise(lambda forget, retain: forget + 10 * retain)
    assert parameters[0].grad is not None
    assert parameters[0].grad.tolist() == [-28.0, -28.0]
    assert parameters[1].grad is not None
    assert parameters[1].grad.tolist() == [1.0, 1.0]
    assert parameters[2].grad is None
    assert buffers.gram().eq(0).all()


@pytest.mark.parametrize(
    "options", [{"form": "elementwise"}, {"forget_weight": -1.0}, {"retain_weight": float("nan")}]
)
def test_bad_options_are_named(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SAGOConfig(output_dir=str(tmp_path), **options)
