"""Runs that diverge: no weights and no checkpoint are spoilt, and what is said is what is there."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from torch import nn

from tests.small_runs import CASES, build_trainer, largest_difference, parameters, rows
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.methods.dual_variable import DualVariable
from unlearn_hf.methods.famo import LogitWeights
from unlearn_hf.training.divergence import may_overflow, total_norm
from unlearn_hf.training.finetuning import FinetuningTrainer
from unlearn_hf.training.finetuning_config import FinetuningConfig
from unlearn_hf.training.optimizer_step import Losses

EXTREMES: list[dict[str, Any]] = [
    {"optim": "sgd", "learning_rate": 10.0},
    {"optim": "sgd", "learning_rate": 1e38, "max_grad_norm": 1.0},
    {"optim": "adamw_torch", "learning_rate": 1e37},
    {"optim": "adamw_torch", "learning_rate": 1e3, "weight_decay": 1e30},
    {"optim": "adafactor", "learning_rate": 1e30},
]
GOING_ON = ("graddiff", "ngdiff-autolr", "eupmu", "eupmu-log", "famo", "gdr-gma", "gru", "npo-budget")


def spoil(trainer: FinetuningTrainer, step: int, value: float = math.inf) -> None:
    """Make one entry of one gradient of the step after `step` infinite, or not a number."""

    def changed(gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        if trainer.state.global_step == step:
            gradient[0, 0] = value
        return gradient

    trainer.model.lm_head.weight.register_hook(changed)


def train_quietly(trainer: FinetuningTrainer, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train(**options)
    return [str(each.message) for each in caught]


def all_finite(tensors: Any) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def likelihoods(trainer: FinetuningTrainer) -> float:
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(4)])
    with torch.no_grad():
        return sum(answer_likelihood(trainer.model.eval(), rows).nll.sum().item() for rows in batch.values())


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


@pytest.mark.parametrize(("case", "stop"), [*((case, True) for case in CASES), *((case, False) for case in GOING_ON)])
def test_no_rate_and_no_optimizer_ends_with_weights_that_are_not_finite(case: str, stop: bool, tmp_path: Path) -> None:
    for number, extreme in enumerate(EXTREMES):
        if case.startswith("gu") and extreme["optim"] != CASES[case][1].get("optim", "sgd"):
            continue  # its metric is that of one optimizer
        folder = tmp_path / str(number)
        options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "stop_on_divergence": stop, **extreme}
        trainer = build_trainer(case, folder, **options)
        train_quietly(trainer)
        assert all_finite(trainer.model.parameters()), extreme
        assert math.isfinite(likelihoods(trainer)), extreme
        for checkpoint in folder.glob("*checkpoint-*"):
            assert all_finite(weights_of(checkpoint).values()), (extreme, checkpoint)
        if trainer.divergence is not None:
            assert stop
            assert trainer.state.global_step <= 4
            kept = checkpoints(folder)
            if kept:  # the newest checkpoint, the weights and the message agree
                assert largest_difference(weights_of(kept[-1]), parameters(trainer.model)) == 0.0
                assert f"after step {kept[-1].name.split('-')[1]}" in trainer.divergence


def test_the_run_of_the_report(tmp_path: Path) -> None:
    """NPO at a rate of 10: its gradients overflow before its losses do."""
    options: dict[str, Any] = {"learning_rate": 10.0, "max_steps": 30, "save_strategy": "steps", "save_steps": 1}
    trainer = build_trainer("npo", tmp_path, **options)
    messages = train_quietly(trainer)
    assert trainer.divergence is not None
    assert any(message.startswith("The run diverged at step") for message in messages)
    newest = checkpoints(tmp_path)[-1]
    assert largest_difference(weights_of(newest), parameters(trainer.model)) == 0.0
    again = build_trainer("npo", tmp_path, **options)
    train_quietly(again, resume_from_checkpoint=True)
    assert all_finite(again.model.parameters())
    assert math.isfinite(likelihoods(again))


@pytest.mark.parametrize("case", ["graddiff", "npo", "eupmu", "pdu", "famo", "ngdiff", "gru", "npo-budget"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_not_applied(case: str, clip: float, value: float, tmp_path: Path) -> None:
    """With losses that are: the weights are those of a run that ended a step earlier."""
    trainer = build_trainer(case, tmp_path, max_steps=4, max_grad_norm=clip)
    spoil(trainer, 2, value)
    messages = train_quietly(trainer)
    assert any("diverged at step 3" in message and "the update was not applied" in message for message in messages)
    good = build_trainer(case, tmp_path, max_steps=2, max_grad_norm=clip)
    good.train()
    assert largest_difference(parameters(good.model), parameters(trainer.model)) == 0.0


def test_without_stopping_the_run_goes_on_after_the_dropped_update(tmp_path: Path) -> None:
    trainer = build_trainer("npo", tmp_path, max_steps=4, stop_on_divergence=False)
    trainer.model.lm_head.weight.register_hook(
        lambda gradient: gradient / (0 if trainer.state.global_step == 1 else 1)
    )
    seen: list[dict[str, torch.Tensor]] = []
    original = trainer.log
    trainer.log = lambda logs, *rest: (seen.append(parameters(trainer.model)), original(logs, *rest))[1]  # type: ignore
    messages = train_quietly(trainer)
    assert trainer.divergence is None
    assert trainer.state.global_step == 4
    assert len([message for message in messages if "goes on without an update" in message]) == 1
    assert largest_difference(seen[0], seen[1]) == 0.0
    assert largest_difference(seen[1], seen[2]) > 0.0
    assert all_finite(trainer.model.parameters())


@pytest.mark.parametrize("strategy", ["steps", "epoch", "best"])
def test_an_emergency_stop_writes_no_checkpoint(strategy: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_strategy": strategy, "save_steps": 3, "max_steps": 6, "learning_rate": 1e-3}
    if strategy == "best":
        options |= {"eval_strategy": "steps", "eval_steps": 3, "metric_for_best_model": "quality"}
        options |= {"greater_is_better": True}
    trainer = build_trainer("npo", tmp_path, **options)
    trainer.evaluators = [lambda *rest, **named: {"quality": 1.0}]
    trainer.model.lm_head.weight.register_hook(
        lambda gradient: gradient / (0 if trainer.state.global_step == 2 else 1)
    )
    train_quietly(trainer)
    assert trainer.divergence is not None
    assert trainer.state.global_step == 3
    assert not list(tmp_path.glob("*checkpoint-*"))


def test_a_checkpoint_that_turned_out_to_be_diverged_is_set_aside(tmp_path: Path) -> None:
    """Its losses were finite on the rows of its step, and are not on those of the next."""
    trainer = build_trainer("npo", tmp_path, learning_rate=0.05, max_steps=5, save_strategy="steps", save_steps=1)

    def blind(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output * math.nan if trainer.state.global_step == 3 and seen["batches"] == 4 else output

    seen = {"batches": 0}
    original = trainer.get_batch_samples

    def count(*rest: Any) -> Any:
        seen["batches"] += 1
        return original(*rest)

    trainer.get_batch_samples = count  # type: ignore[method-assign]
    trainer.model.lm_head.register_forward_hook(blind)
    train_quietly(trainer)
    assert trainer.divergence is not None
    assert "the weights after step 2 are kept" in trainer.divergence
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-2"]
    assert (tmp_path / "diverged-checkpoint-3").is_dir()
    assert largest_difference(weights_of(tmp_path / "checkpoint-2"), parameters(trainer.model)) == 0.0


def test_an_adapter_is_guarded_too(tmp_path: Path) -> None:
    trainer = build_trainer(
        "npo", tmp_path, learning_rate=1e38, max_steps=5, peft_config=LoraConfig(r=4, target_modules="all-linear")
    )
    train_quietly(trainer)
    assert trainer.divergence is not None
    assert all_finite(trainer.model.parameters())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"optim": "adamw_torch", "learning_rate": 1e-5}, False),
        ({"optim": "adamw_torch", "learning_rate": 0.1}, True),
        ({"optim": "adamw_torch", "learning_rate": 1e-3, "weight_decay": 1e4}, True),
        ({"optim": "adamw_torch", "learning_rate": 1e-5, "adam_epsilon": 1e-30}, True),
        ({"optim": "paged_adamw_8bit", "learning_rate": 1e-5}, False),
        ({"optim": "sgd", "learning_rate": 1e-3, "max_grad_norm": 0.0}, True),
        ({"optim": "sgd", "learning_rate": 1e-3, "max_grad_norm": 1.0}, False),
    ],
)
def test_weights_are_copied_only_where_a_step_may_spoil_them(
    options: dict[str, Any], expected: bool, tmp_path: Path
) -> None:
    args = build_trainer("npo", tmp_path, **options).args
    assert may_overflow(args, custom_optimizer=False) == expected
    assert may_overflow(args, custom_optimizer=True)


def test_total_norm() -> None:
    tensors = [torch.tensor([3.0, 0.0]), None, torch.tensor([[4.0]])]
    assert total_norm(tensors).item() == 5.0
    assert total_norm([None]).item() == 0.0
    assert math.isnan(total_norm([torch.tensor([1.0, math.nan])]).item())
    assert total_norm([torch.tensor([1.0, math.inf])]).item() == math.inf


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith(("eupmu", "pdu", "famo"))])
def test_states_survive_a_loss_that_is_not_finite_after_the_step(case: str, loss: float, tmp_path: Path) -> None:
    trainer = build_trainer(case, tmp_path, max_steps=5)
    original = trainer.loss_again
    trainer.loss_again = lambda name: loss if trainer.state.global_step == 1 else original(name)  # type: ignore
    trainer.train()
    assert trainer.state.global_step == 5
    text = repr(trainer.method_state()) + repr(trainer.retain_level.state_dict() if trainer.retain_level else "")
    assert not re.search(r"\bnan\b|\binf\b", text), text
    assert all_finite(trainer.model.parameters())


def test_moves_nothing() -> None:
    dual, weights = DualVariable(1.0, "adam", 0.3), LogitWeights(0.1, 0.0)
    for value in (math.nan, math.inf, -math.inf):
        dual.descend(value)
        weights.update(Losses(1.0, 1.0), Losses(value, 1.0))
        weights.update(Losses(1.0, value), Losses(1.0, 1.0))
    assert dual.value == 1.0
    assert weights.values.tolist() == [0.5, 0.5]
    assert nn.Parameter(weights.values).isfinite().all()


@pytest.mark.parametrize("options", [{"learning_rate": 1e38, "optim": "adamw_torch"}, {"learning_rate": 1e39}])
def test_rates_that_float32_does_not_hold_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^learning_rate: 1e\+3"):
        build_trainer("npo", tmp_path, **options)


def finetuning(folder: Path, **options: Any) -> FinetuningTrainer:
    """Three steps of two micro-batches, plain SGD."""
    settings: dict[str, Any] = {"learning_rate": 0.05, "max_steps": 3, "optim": "sgd", "lr_scheduler_type": "constant"}
    settings |= {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "max_grad_norm": 0.0}
    settings |= {
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": None,
        "use_cpu": True,
        "disable_tqdm": True,
        **options,
    }
    args = FinetuningConfig(output_dir=str(folder), **settings)
    return FinetuningTrainer(build_model(), args, rows(24, 1), processing_class=build_tokenizer())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_fine_tuning_is_guarded_too(value: float, tmp_path: Path) -> None:
    trainer = finetuning(tmp_path / "spoilt")
    spoil(trainer, 2, value)
    train_quietly(trainer)
    assert trainer.divergence is not None
    assert trainer.divergence.startswith("step 3: training loss ")
    assert trainer.divergence.endswith("the weights after step 2 are kept. Lower learning_rate.")
    good = finetuning(tmp_path / "good", max_steps=2)
    good.train()
    assert good.divergence is None
    assert largest_difference(parameters(good.model), parameters(trainer.model)) == 0.0
    assert [path.name for path in checkpoints(tmp_path / "spoilt")] == ["checkpoint-1", "checkpoint-2"]


def test_fine_tuning_goes_on_where_it_is_told_to(tmp_path: Path) -> None:
    trainer = finetuning(tmp_path, stop_on_divergence=False)
    spoil(trainer, 1)
    messages = train_quietly(trainer)
    assert trainer.divergence is None
    assert trainer.state.global_step == 3
    assert len([message for message in messages if "goes on without an update" in message]) == 1
    assert all_finite(trainer.model.parameters())
    one, two, three = (weights_of(path) for path in checkpoints(tmp_path))
    assert largest_difference(one, two) == 0.0
    assert largest_difference(two, three) > 0.0


@pytest.mark.parametrize("extreme", EXTREMES)
def test_no_rate_spoils_a_fine_tuned_model(extreme: dict[str, Any], tmp_path: Path) -> None:
    trainer = finetuning(tmp_path, **extreme)
    train_quietly(trainer)
    assert all_finite(trainer.model.parameters())
    for checkpoint in tmp_path.glob("checkpoint-*"):
        assert all_finite(weights_of(checkpoint).values())
