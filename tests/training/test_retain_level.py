"""The rise of the retain loss, and the budget that ends a run."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import PartialState, debug_launcher
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, TrainerCallback

from tests.small_runs import build_trainer, largest_difference, parameters
from tests.tiny_models import build_model
from unlearn_hf.training.retain_level import RetainBudget, RetainProbe
from unlearn_hf.training.unlearning import UnlearningTrainer
from unlearn_hf.training.unlearning_config import UnlearningConfig

# Gradient ascent on the very rows that are to be kept: their loss rises by 18 % in 9 steps.
BUDGET: dict[str, Any] = {
    "forget_loss": "ga",
    "retain_weight": 0.01,
    "retain": 12,
    "forget_seed": 2,
    "max_steps": 9,
    "retain_budget": 0.1,
    "level_probe_rows": 6,
    "level_probe_interval": 2,
}


class Keep(TrainerCallback):
    """The parameters before the first and after every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == len(self.steps):
            self.steps.append(parameters(model))


def stopped(folder: Path, **options: Any) -> tuple[UnlearningTrainer, list[dict[str, torch.Tensor]], str]:
    keep = Keep()
    trainer = build_trainer("graddiff", folder, callbacks=[keep], **(BUDGET | options))
    with pytest.warns(UserWarning, match="Retain budget spent") as caught:
        trainer.train()
    lines = [str(each.message) for each in caught if "Retain budget" in str(each.message)]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    return trainer, keep.steps, lines[0]


def logged(trainer: UnlearningTrainer, name: str) -> list[float]:
    return [line[name] for line in trainer.state.log_history if name in line]


@pytest.mark.parametrize("estimate", ["probe", "ema", "batch"])
def test_run_stops_with_the_last_weights_within_budget(estimate: str, tmp_path: Path) -> None:
    trainer, steps, line = stopped(tmp_path, level_estimate=estimate)
    step, kept = trainer.state.global_step, int(logged(trainer, "retain_budget_kept_step")[0])
    assert 0 < step - 2 <= kept < step < 9
    assert line.startswith(f"Retain budget spent at step {step}:")
    assert "retain_budget 0.1 (10 %)" in line
    assert f"weights after step {kept} are kept" in line
    assert largest_difference(parameters(trainer.model), steps[kept]) == 0.0
    # What is logged last is what a probe says of the weights that are kept, whatever the estimate.
    assert trainer.retain_budget is not None
    level = trainer.retain_budget.level
    assert level.rise is not None
    assert f"{100 * level.rise:.4g} %" in line
    assert level.rise > 0.1
    level.measure(step)
    assert logged(trainer, "retain_rise")[-1] == level.rise <= 0.1


@pytest.mark.parametrize("estimate", ["probe", "ema", "batch"])
@pytest.mark.parametrize("rate", [0.1, 0.3, 1.0])
def test_what_is_kept_was_measured_within_budget(estimate: str, rate: float, tmp_path: Path) -> None:
    """Also where the rows of a step are below a budget that others are above: at high rates."""
    options = {"level_estimate": estimate, "learning_rate": rate, "level_probe_interval": 5}
    options |= {"forget_seed": 1, "retain_weight": 1.0}
    trainer = build_trainer("graddiff", tmp_path, **(BUDGET | options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    assert trainer.retain_budget is not None
    level = trainer.retain_budget.level
    level.measure(trainer.state.global_step)
    assert level.rise is not None
    assert level.rise <= 0.1


def test_a_run_with_a_budget_is_probed_more_often_at_first(tmp_path: Path) -> None:
    trainer = build_trainer("npo", tmp_path, max_steps=13, retain_budget=1e6, level_probe_interval=6)
    assert trainer.retain_level is not None
    measured: list[int] = []
    original = trainer.retain_level.measure
    trainer.retain_level.measure = lambda step: (measured.append(step), original(step))[1]  # type: ignore
    trainer.train()
    assert measured == [0, 1, 2, 4, 6, 12, 13]
    level = build_trainer("eupmu", tmp_path, constraint="level", max_steps=8, level_probe_interval=4)
    assert level.retain_level is not None
    assert [step for step in range(1, 9) if level.retain_level._due(step)] == [4, 8]


def test_first_step_over_budget_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    trainer, steps, _ = stopped(tmp_path, retain_budget=1e-4, level_probe_interval=1)
    assert trainer.state.global_step == 1
    assert largest_difference(parameters(trainer.model), steps[0]) == 0.0


def test_the_end_of_a_run_is_measured_too(tmp_path: Path) -> None:
    trainer, steps, line = stopped(tmp_path, level_probe_interval=100, max_steps=3, retain_budget=0.0827)
    assert trainer.state.global_step == 3
    assert "at step 3" in line
    assert largest_difference(parameters(trainer.model), steps[2]) == 0.0


def test_no_checkpoint_is_over_budget(tmp_path: Path) -> None:
    trainer, steps, _ = stopped(tmp_path, level_probe_interval=100, save_strategy="steps", save_steps=1)
    step, kept = trainer.state.global_step, int(logged(trainer, "retain_budget_kept_step")[0])
    assert kept == step - 1
    for number in range(1, step + 1):
        saved = AutoModelForCausalLM.from_pretrained(tmp_path / f"checkpoint-{number}")
        assert largest_difference(parameters(saved), steps[min(number, kept)]) == 0.0


@pytest.mark.parametrize("estimate", ["probe", "ema"])
def test_resumed_run_stops_where_the_uninterrupted_one_does(estimate: str, tmp_path: Path) -> None:
    options = {"level_estimate": estimate, "level_probe_interval": 3, "save_strategy": "steps", "save_steps": 1}
    whole, _, line = stopped(tmp_path / "whole", **options)
    kept = int(logged(whole, "retain_budget_kept_step")[0])
    again = build_trainer("graddiff", tmp_path / "again", **(BUDGET | options))
    with pytest.warns(UserWarning, match="Retain budget spent") as caught:
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{max(1, kept - 1)}"))
    assert line in [str(each.message) for each in caught]
    assert largest_difference(parameters(whole.model), parameters(again.model)) == 0.0


def _two_ranks(folder: str) -> None:
    for estimate in ("probe", "batch"):
        trainer = build_trainer(
            "graddiff",
            Path(folder),
            per_device_train_batch_size=1,
            gradient_accumulation_steps=2,
            **(BUDGET | {"level_estimate": estimate, "level_probe_rows": 5}),
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.train()
        told = sum("Retain budget" in str(each.message) for each in caught)
        assert told == int(trainer.is_world_process_zero())
        if trainer.is_world_process_zero():
            level = trainer.retain_level
            assert level is not None
            torch.save(
                {"step": trainer.state.global_step, "rise": level.rise, **parameters(trainer.model)},
                Path(folder) / f"{estimate}.pt",
            )


def test_one_rank_or_two(tmp_path: Path) -> None:
    debug_launcher(_two_ranks, args=(str(tmp_path),), num_processes=2)
    for estimate in ("probe", "batch"):
        trainer, _, _ = stopped(tmp_path / estimate, level_estimate=estimate, level_probe_rows=5)
        found = torch.load(tmp_path / f"{estimate}.pt")
        assert found.pop("step") == trainer.state.global_step
        assert trainer.retain_level is not None
        assert found.pop("rise") == pytest.approx(trainer.retain_level.rise, abs=1e-5)
        assert largest_difference(parameters(trainer.model), found) < 2e-6


def _sharded() -> None:
    PartialState._reset_state()  # of tests before, inherited from the parent process
    PartialState(cpu=True)
    model = build_model()
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    level = SimpleNamespace(rise=0.0, step=0)
    control = SimpleNamespace(should_training_stop=False)
    trainer: Any = SimpleNamespace(
        model=model,
        is_deepspeed_enabled=False,
        state=SimpleNamespace(global_step=0),
        control=control,
        is_world_process_zero=lambda: False,
    )
    budget = RetainBudget(trainer, level, 0.1)  # type: ignore[arg-type]
    budget.begin()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    level.rise, level.step = 0.2, 1
    budget.check(1)
    assert control.should_training_stop
    original = dict(build_model().named_parameters())
    for name, parameter in model.named_parameters():
        assert isinstance(parameter, DTensor)
        assert torch.equal(parameter.full_tensor(), original[name])


def test_every_rank_puts_back_its_shards() -> None:
    debug_launcher(_sharded, num_processes=2)


def test_a_budget_that_is_not_reached_changes_nothing(tmp_path: Path) -> None:
    runs = []
    for options in ({}, {"retain_budget": 1e6, "level_probe_interval": 1}):
        trainer = build_trainer("npo", tmp_path, model=build_model(dropout=0.1), **options)
        trainer.train()
        runs.append(parameters(trainer.model))
    assert largest_difference(*runs) == 0.0
    assert trainer.retain_budget is not None
    assert trainer.retain_budget.exceeded is None
    # The line of a step shows what the last probe said: nothing has changed before the first step.
    assert logged(trainer, "retain_rise")[0] == 0.0


def test_probe_is_the_cross_entropy_of_its_rows(tmp_path: Path) -> None:
    model = build_model(dropout=0.5)
    trainer = build_trainer("npo", tmp_path, model=model, per_device_eval_batch_size=2)
    retain = trainer.train_dataset.retain
    probe = RetainProbe(retain, 7, seed=3)
    assert len({tuple(row["input_ids"]) for row in probe.rows}) == 7
    assert RetainProbe(retain, 7, seed=3).rows == probe.rows
    assert RetainProbe(retain, 7, seed=4).rows != probe.rows
    assert len(RetainProbe(retain, 1000, seed=3).rows) == len(retain)
    model.train()
    state = torch.get_rng_state()
    found = probe.loss(trainer)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    model.eval()
    nll, tokens = 0.0, 0
    for row in probe.rows:
        with torch.no_grad():
            log_p = torch.log_softmax(model(input_ids=torch.tensor([row["input_ids"]])).logits[0].double(), -1)
        for position, label in enumerate(row["labels"][1:]):
            if label != -100:
                nll, tokens = nll - log_p[position, label].item(), tokens + 1
    assert found == pytest.approx(nll / tokens, rel=1e-6)


def test_kl_can_be_followed_by_a_probe(tmp_path: Path) -> None:
    trainer = build_trainer("graddiff", tmp_path, retain_loss="kl", retain_budget=50.0, level_probe_interval=1)
    trainer.train()
    assert logged(trainer, "retain_rise")[-1] != 0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"retain_budget": 0.0}, "retain_budget"),
        ({"level_estimate": "guess"}, "level_estimate"),
        ({"level_probe_rows": 0}, "level_probe_rows"),
        ({"level_probe_interval": -1}, "level_probe_interval"),
        ({"level_ema_decay": 1.0}, "level_ema_decay"),
        ({"retain_budget": 0.1, "retain_loss": "kl", "level_estimate": "ema"}, "level_estimate"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=field):
        UnlearningConfig(output_dir=str(tmp_path), **options)


def test_a_budget_cannot_be_added_to_a_run_that_is_resumed(tmp_path: Path) -> None:
    """Its loss before unlearning is not known: that of the checkpoint would pass for it."""
    saving = {"save_strategy": "steps", "save_steps": 2}
    build_trainer("graddiff", tmp_path, max_steps=2, **saving).train()
    resumed = build_trainer("graddiff", tmp_path, max_steps=4, retain_budget=0.1, **saving)
    with pytest.raises(ValueError, match=r"retain_budget: 0\.1 needs the retain loss before unlearning"):
        resumed.train(resume_from_checkpoint=True)
