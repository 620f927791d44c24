"""Checks of what must not change a result, shared by the tests of the methods and of deliberately wrong variants.

Every check raises an `AssertionError` when the result changes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import debug_launcher
from peft import LoraConfig
from transformers import TrainerCallback

from tests.small_runs import build_trainer, largest_difference, parameters
from tests.tiny_models import build_model
from unlearn_hf.data.collator import UnlearningCollator

TOLERANCE = 2e-6
PADDING = 7
ONE_BY_ONE: dict[str, Any] = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
RESUMABLE: dict[str, Any] = {
    "max_steps": 6,
    "save_strategy": "steps",
    "save_steps": 3,
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
}


Parameters = dict[str, torch.Tensor]


def run(case: str, folder: Path, **overrides: Any) -> Parameters:
    """Train `case` and return its parameters."""
    trainer = build_trainer(case, folder, **overrides)
    trainer.train()
    return parameters(trainer.model)


def check_accumulation(case: str, folder: Path, jumps: int = 0, once: Parameters | None = None) -> None:
    """Four rows at once, or one by one; `jumps` elements may differ, where a rule jumps at zero.

    What the run without overrides ended with, here and below, is given where that was trained before.
    """
    once, one_by_one = once or run(case, folder), run(case, folder, **ONE_BY_ONE)
    differences = torch.cat([(once[name] - one_by_one[name]).abs().flatten() for name in once])
    assert (differences >= TOLERANCE).sum() <= jumps, differences.max()


def _rank(cases: list[str], folder: str) -> None:
    for case in cases:
        trainer = build_trainer(case, Path(folder), per_device_train_batch_size=1, gradient_accumulation_steps=2)
        trainer.train()
        if trainer.is_world_process_zero():
            torch.save(parameters(trainer.model), Path(folder) / f"{case}.pt")


def check_two_ranks(cases: list[str], folder: Path, whole: dict[str, Parameters] | None = None) -> None:
    """One process with four rows, or two with twice one row each."""
    whole = whole or {case: run(case, folder / case) for case in cases}
    debug_launcher(_rank, args=(cases, str(folder)), num_processes=2)
    differences = {case: largest_difference(whole[case], torch.load(folder / f"{case}.pt")) for case in cases}
    assert max(differences.values()) < TOLERANCE, differences


def check_activation_checkpointing(case: str, folder: Path, **overrides: Any) -> None:
    """Activations kept, or computed again in the backward pass, with the same dropout."""
    kept = run(case, folder, model=build_model(dropout=0.1))
    again = run(case, folder, model=build_model(dropout=0.1), activation_checkpointing=True, **overrides)
    assert largest_difference(kept, again) < TOLERANCE


class PaddingCollator(UnlearningCollator):
    """Pads every batch by a few positions more than it needs."""

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate and pad."""
        return self._padded(super().__call__(examples))

    def _padded(self, batch: dict[str, Any]) -> dict[str, Any]:
        fill = {"input_ids": self.pad_token_id, "attention_mask": 0, "labels": -100}
        return {
            name: self._padded(value)
            if isinstance(value, dict)
            else F.pad(value, (0, PADDING), value=fill[name])
            if name in fill
            else value
            for name, value in batch.items()
        }


def check_padding(case: str, folder: Path, narrow: Parameters | None = None) -> None:
    """Batches as wide as their longest row, or wider."""
    narrow = narrow or run(case, folder)
    trainer = build_trainer(case, folder)
    trainer.data_collator = PaddingCollator(trainer.data_collator.pad_token_id)
    trainer.train()
    difference = largest_difference(narrow, parameters(trainer.model))
    assert difference < TOLERANCE, difference


def check_adapter_alone_is_trained(case: str, folder: Path) -> None:
    """With an adapter, its parameters change, in float32, and no other."""
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=True)
    trainer = build_trainer(case, folder, peft_config=config)
    before = parameters(trainer.model)
    trainer.train()
    after = parameters(trainer.model)
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed
    assert all("lora_" in name for name in changed)
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters() if parameter.requires_grad)


class _Kill(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            os.kill(os.getpid(), signal.SIGKILL)


def _train_until_killed(case: str, folder: str) -> None:
    run(case, Path(folder), model=build_model(dropout=0.1), callbacks=[_Kill()], **RESUMABLE)


def check_resuming(case: str, folder: Path) -> None:
    """Killed after step four and resumed from step three, or never interrupted: bit for bit, state included."""
    uninterrupted = build_trainer(case, folder / "whole", model=build_model(dropout=0.1), **RESUMABLE)
    uninterrupted.train()
    process = multiprocessing.get_context("fork").Process(
        target=_train_until_killed, args=(case, str(folder / "killed"))
    )
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    trainer = build_trainer(case, folder / "killed", model=build_model(dropout=0.1), **RESUMABLE)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 6
    assert largest_difference(parameters(uninterrupted.model), parameters(trainer.model)) == 0.0
    # A state can be wrong for long before parameters show it: a dual variable at zero has its optimizer's moments.
    assert repr(trainer.method_state()) == repr(uninterrupted.method_state())
    assert repr(trainer.lr_scheduler.state_dict()) == repr(uninterrupted.lr_scheduler.state_dict())
