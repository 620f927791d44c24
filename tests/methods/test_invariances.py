"""What must not change the result, for every method: micro-batches, ranks, interruptions, adapters."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import debug_launcher
from peft import LoraConfig
from transformers import TrainerCallback

from tests.conftest import build_model
from tests.training import CASES, build_trainer, largest_difference, parameters
from unlearn_hf.methods import METHODS

ALL = list(CASES)


def run(case: str, folder: Path, **overrides: Any) -> dict[str, torch.Tensor]:
    trainer = build_trainer(case, folder, **overrides)
    trainer.train()
    return parameters(trainer.model)


def test_every_method_is_in_the_table() -> None:
    assert {method for method, _ in CASES.values()} == set(METHODS)


@pytest.mark.parametrize("case", ALL)
def test_training_moves_every_parameter_and_logs(case: str, tmp_path: Path) -> None:
    trainer = build_trainer(case, tmp_path)
    before = parameters(trainer.model)
    trainer.train()
    after = parameters(trainer.model)
    assert all((before[name] != after[name]).any() for name in before)
    line = trainer.state.log_history[0]
    assert {"loss", "forget_loss", "retain_loss", "forget_weight", "retain_weight"} <= line.keys()
    if trainer.needs_gram:
        assert {"forget_gradient_norm", "retain_gradient_norm", "gradient_cosine"} <= line.keys()
        assert -1 <= line["gradient_cosine"] <= 1
    assert ("dual_variable" in line) == case.startswith(("eupmu", "pdu"))


@pytest.mark.parametrize("case", ALL)
def test_four_rows_at_once_or_one_by_one(case: str, tmp_path: Path) -> None:
    whole = run(case, tmp_path)
    split = run(case, tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert largest_difference(whole, split) < 2e-6


def _two_ranks(folder: str) -> None:
    for case in ALL:
        trainer = build_trainer(case, Path(folder), per_device_train_batch_size=1, gradient_accumulation_steps=2)
        trainer.train()
        if trainer.is_world_process_zero():
            torch.save(parameters(trainer.model), Path(folder) / f"{case}.pt")


def test_one_rank_or_two(tmp_path: Path) -> None:
    debug_launcher(_two_ranks, args=(str(tmp_path),), num_processes=2)
    differences = {}
    for case in ALL:
        whole = run(case, tmp_path / case)
        differences[case] = largest_difference(whole, torch.load(tmp_path / f"{case}.pt"))
    assert max(differences.values()) < 2e-6, differences


@pytest.mark.parametrize("case", ALL)
def test_activation_checkpointing_changes_nothing(case: str, tmp_path: Path) -> None:
    assert largest_difference(run(case, tmp_path), run(case, tmp_path, activation_checkpointing=True)) < 2e-6


@pytest.mark.parametrize("case", ALL)
def test_adapter_alone_is_trained(case: str, tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=True)
    trainer = build_trainer(case, tmp_path, peft_config=config)
    before = parameters(trainer.model)
    trainer.train()
    after = parameters(trainer.model)
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed
    assert all("lora_" in name for name in changed)
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters() if parameter.requires_grad)


def _killed_at_step_four(case: str, folder: str) -> None:
    class Kill(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 4:
                os.kill(os.getpid(), signal.SIGKILL)

    trainer = build_trainer(case, Path(folder), callbacks=[Kill()], **RESUMABLE)
    trainer.train()


RESUMABLE: dict[str, Any] = {
    "max_steps": 6,
    "save_strategy": "steps",
    "save_steps": 3,
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
    "model": None,
}


@pytest.mark.parametrize("case", ALL)
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(case: str, tmp_path: Path) -> None:
    options = {key: value for key, value in RESUMABLE.items() if key != "model"}
    uninterrupted = run(case, tmp_path / "whole", model=build_model(dropout=0.1), **options)
    process = multiprocessing.get_context("fork").Process(
        target=_killed_with_dropout, args=(case, str(tmp_path / "killed"))
    )
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    trainer = build_trainer(case, tmp_path / "killed", model=build_model(dropout=0.1), **options)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 6
    assert largest_difference(uninterrupted, parameters(trainer.model)) == 0.0


def _killed_with_dropout(case: str, folder: str) -> None:
    RESUMABLE["model"] = build_model(dropout=0.1)
    _killed_at_step_four(case, folder)
