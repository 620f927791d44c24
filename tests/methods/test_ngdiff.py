"""NGDiff and its automatic learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from peft import LoraConfig

from tests.small_runs import build_trainer, largest_difference, parameters
from tests.tiny_models import build_model
from unlearn_hf.training.automatic_learning_rate import AutomaticLearningRate, newton_ratio


def test_newton_ratio_finds_the_minimum_of_a_parabola() -> None:
    """Along one axis, L(x) = a (x - m)^2 from 0 with a step s: the best step is m, so the ratio is m / s."""
    for minimum, step in ((1.2, 1.0), (0.7, 1.0), (3.0, 2.0)):
        loss = lambda x, minimum=minimum: 2.5 * (x - minimum) ** 2 + 1  # noqa: E731
        assert newton_ratio(loss(0), loss(step), loss(-step)) == pytest.approx(minimum / step)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1.0, 0.0, 9.0), 4.5 / 7),
        ((1.0, -5.0, 8.0), 2.0),  # clipped above: 6.5 / 1
        ((1.0, 3.0, 4.0), 0.5),  # clipped below
        ((1.0, 1.5, 1.2), None),  # uphill
        ((1.0, 0.5, 1.2), None),  # curved downwards
        ((1.0, float("nan"), 2.0), None),
        ((float("inf"), 1.0, 2.0), None),
    ],
)
def test_newton_ratio_is_clipped_and_refuses_what_is_no_valley(
    values: tuple[float, float, float], expected: float | None
) -> None:
    assert newton_ratio(*values) == (pytest.approx(expected) if expected is not None else None)


def test_scheduler_smooths_clamps_and_resumes() -> None:
    def build() -> tuple[torch.optim.Optimizer, AutomaticLearningRate]:
        groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in (1.0, 0.1)]
        optimizer = torch.optim.SGD(groups)
        return optimizer, AutomaticLearningRate(optimizer, minimum=0.5, maximum=1.05)

    optimizer, scheduler = build()
    scheduler.probed(None)
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [1.0, 0.1]
    scheduler.probed(0.5)
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.95, 0.095])
    other_optimizer, other = build()
    other.load_state_dict(scheduler.state_dict())
    other_optimizer.step()
    other.step()
    assert other.get_last_lr() == scheduler.get_last_lr()
    for _ in range(40):
        scheduler.probed(2.0)
    assert scheduler.factor == 1.05
    for _ in range(400):
        scheduler.probed(0.5)
    assert scheduler.factor == 0.5


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("graddiff", {"retain_weight": 0.0}),  # the loss is measured although it has no weight
        ("npo", {}),
        ("eupmu", {}),
        ("eupmu", {"constraint": "step", "reevaluate": False}),
        ("famo", {}),
        ("gu", {}),
        ("pdu", {"retain_loss": "kl"}),
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_with_every_kind_of_method_a_probe_changes_nothing_but_the_rate(
    case: str, options: dict[str, Any], dropout: float, tmp_path: Path
) -> None:
    """Held fixed, the rate leaves the run as it is, bit for bit; let go, it moves."""
    options = {**options, "max_steps": 4}
    held = {"autolr_min": 0.05, "autolr_max": 0.05, "autolr_interval": 2, "autolr": True}
    runs, states, factors = [], [], []
    for probing in ({}, held, {"autolr": True, "autolr_interval": 2}):
        torch.manual_seed(0)
        trainer = build_trainer(case, tmp_path, model=build_model(dropout=dropout), **options, **probing)
        trainer.train()
        runs.append(parameters(trainer.model))
        states.append(repr(trainer.method_state()))
        factors.append(getattr(trainer.lr_scheduler, "factor", 1.0))
    assert largest_difference(*runs[:2]) == 0.0
    assert states[0] == states[1]
    assert factors[1] == 1.0
    assert dropout or factors[2] != 1.0  # under dropout a probe may find no valley


@pytest.mark.parametrize("source", ["none", "attention", "lora"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw_torch"])
def test_a_probe_changes_nothing_but_the_next_rate(optimizer: str, source: str, tmp_path: Path) -> None:
    """The optimizer steps once and no mask is drawn: with the rate held fixed, the run stays bit for bit the same."""
    options: dict[str, Any] = {"optim": optimizer, "learning_rate": 1e-3, "max_steps": 4}
    options |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    held = {"autolr_min": 1e-3, "autolr_max": 1e-3, "autolr_interval": 1, "autolr": True}
    runs = []
    for probing in ({}, held):
        model = build_model(dropout=0.3 if source == "attention" else 0.0)
        adapter = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.3) if source == "lora" else None
        torch.manual_seed(0)
        trainer = build_trainer("ngdiff", tmp_path, model=model, peft_config=adapter, **options, **probing)
        trainer.train()
        runs.append(parameters(trainer.model))
    assert largest_difference(*runs) == 0.0


@pytest.mark.parametrize("source", ["attention", "lora"])
def test_the_losses_of_a_probe_have_the_same_dropout(source: str, tmp_path: Path) -> None:
    """With a rate that moves nothing, all three are the same number."""
    seen: list[tuple[float, ...]] = []
    model = build_model(dropout=0.3 if source == "attention" else 0.0)
    adapter = None
    if source == "lora":
        adapter = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.3, init_lora_weights=False)
    options: dict[str, Any] = {"learning_rate": 1e-12, "per_device_train_batch_size": 2}
    options |= {"gradient_accumulation_steps": 2, "max_steps": 4, "autolr": True, "autolr_interval": 2}
    trainer = build_trainer("ngdiff", tmp_path, model=model, peft_config=adapter, **options)
    with patch("unlearn_hf.training.automatic_learning_rate.newton_ratio", lambda *losses: seen.append(losses)):
        trainer.train()
    assert len(seen) == 2
    for at, ahead, behind in seen:
        assert ahead == pytest.approx(at, rel=1e-6)
        assert behind == pytest.approx(at, rel=1e-6)


def test_a_probe_whose_step_was_skipped_is_forgotten(tmp_path: Path) -> None:
    """A gradient scaler skips a step that overflows; the step after it is not compared with what was before both."""
    trainer = build_trainer("ngdiff", tmp_path, autolr=True, autolr_interval=2, max_steps=3)
    probed: list[int] = []
    probe = trainer.learning_rate_probe
    assert probe is not None
    probe.finish = lambda at, ahead: probed.append(len(probe._before))  # type: ignore[method-assign]
    trainer.train()
    assert probed == [0, len(parameters(trainer.model)), 0]


def test_probes_see_the_losses_on_both_sides(tmp_path: Path) -> None:
    trainer = build_trainer("ngdiff", tmp_path, autolr=True, autolr_interval=1, max_steps=1, optim="sgd")
    before = parameters(trainer.model)
    seen: list[dict[str, torch.Tensor]] = []
    original = trainer.loss_again

    def watch(name: str) -> float:
        assert name == "retain"
        seen.append(parameters(trainer.model))
        return original(name)

    trainer.loss_again = watch  # type: ignore[method-assign]
    trainer.train()
    after = parameters(trainer.model)
    ahead, behind = seen
    assert largest_difference(ahead, after) == 0.0
    mirrored = {name: 2 * before[name] - after[name] for name in before}
    assert largest_difference(behind, mirrored) < 1e-7
    assert trainer.lr_scheduler.factor != 1.0


def test_rate_is_logged_and_moves(tmp_path: Path) -> None:
    trainer = build_trainer("ngdiff", tmp_path, autolr=True, autolr_interval=2, max_steps=8, optim="sgd")
    trainer.train()
    rates = [line["learning_rate"] for line in trainer.state.log_history if "learning_rate" in line]
    assert len(set(rates)) > 1


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adafactor", "adamw_bnb_8bit"])
def test_with_other_optimizers(optimizer: str, tmp_path: Path) -> None:
    """The rate follows the losses, and no parameter moves by more than a few rates."""
    if optimizer == "adamw_bnb_8bit":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    rate = {"optim": optimizer, "learning_rate": 1e-3}
    trainer = build_trainer("ngdiff", tmp_path, autolr=True, autolr_interval=2, max_steps=8, **rate)
    before = parameters(trainer.model)
    trainer.train()
    rates = [line["learning_rate"] for line in trainer.state.log_history if "learning_rate" in line]
    assert len(set(rates)) > 1
    assert 1e-3 < largest_difference(before, parameters(trainer.model)) < 4 * sum(rates)


def test_direction_is_the_sum_of_unit_gradients(tmp_path: Path) -> None:
    """Against gradients computed apart, in one SGD step."""
    trainer = build_trainer("ngdiff", tmp_path, max_steps=1, learning_rate=0.1)
    before = parameters(trainer.model)
    gradients: dict[str, list[torch.Tensor]] = {}
    original = trainer.gradients_collected

    def record(scale: float) -> None:
        batch = trainer._prepare_inputs(trainer.window.batches[0])  # type: ignore[union-attr]
        for name in ("forget", "retain"):
            loss = trainer.objective_loss(trainer.model, name, batch)
            gradients[name] = list(torch.autograd.grad(loss, list(trainer.model.parameters())))
        original(scale)

    trainer.gradients_collected = record  # type: ignore[method-assign]
    trainer.train()
    units = []
    for values in gradients.values():
        norm = torch.sqrt(sum((value.double() ** 2).sum() for value in values))  # type: ignore[arg-type]
        units.append([value / norm for value in values])
    for (name, old), forget, retain in zip(before.items(), *units, strict=True):
        expected = old - 0.1 * (forget + retain)
        torch.testing.assert_close(parameters(trainer.model)[name], expected.float(), rtol=1e-5, atol=1e-7)
