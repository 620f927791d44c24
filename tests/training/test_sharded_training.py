"""Whole runs under FSDP2, through accelerate and the Trainer: two processes on the CPU against one.

accelerate shards on accelerators only; the processes of these tests say that they have some. All else is real: the
preparation of the model, gathering and scattering (gloo), checkpoints.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState, debug_launcher
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from tests.evaluation.rows import tiny_tofu
from tests.methods.invariances import TOLERANCE, run
from tests.small_runs import CASES, build_trainer, largest_difference, parameters
from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.training.checkpoints import damage

HALVES: dict[str, Any] = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
# one for every control flow: one gradient, references, two gradients, probes, another forward pass, losses known late
SHARDED = ("graddiff", "graddiff-kl", "npo", "ngdiff-autolr", "eupmu", "eupmu-level-probe", "surgery", "gru", "famo")
SHARDED += ("eupmu-dpo-kl", "pdu-rmu-hidden", "gru-rmu-adaptive")  # two answers, part of the layers, hidden states
STEPS: dict[str, Any] = {
    "max_steps": 4,
    "save_strategy": "steps",
    "save_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
}


def _say_that_there_are_gpus() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # of tests before, inherited from the parent process
    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    }
    original = PartialState.__init__

    def begin(self: PartialState, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    pytest.MonkeyPatch().setattr(PartialState, "__init__", begin)


def _whole_parameters(trainer: Any) -> dict[str, torch.Tensor]:
    assert all(isinstance(parameter, DTensor) for parameter in trainer.model_wrapped.parameters())
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    names = dict(trainer.model.named_parameters())
    return {name: value for name, value in state.items() if name in names}


def _train(cases: tuple[str, ...], folder: str) -> None:
    _say_that_there_are_gpus()
    for case in cases:
        trainer = build_trainer(case, Path(folder) / case, **HALVES)
        trainer.train()
        found = _whole_parameters(trainer)
        if trainer.is_world_process_zero():
            torch.save(found, Path(folder) / f"{case}.pt")


def check_cases(cases: tuple[str, ...], folder: Path) -> None:
    debug_launcher(_train, args=(cases, str(folder)), num_processes=2)
    differences = {
        case: largest_difference(run(case, folder / "whole"), torch.load(folder / f"{case}.pt")) for case in cases
    }
    assert max(differences.values()) < TOLERANCE, differences


def test_every_control_flow(tmp_path: Path) -> None:
    check_cases(SHARDED, tmp_path)


@pytest.mark.slow
def test_every_method(tmp_path: Path) -> None:
    check_cases(tuple(case for case in CASES if case not in ("task-vector", "whp")), tmp_path)  # refused


def _evaluated(folder: Path, **options: Any) -> Any:
    trainer = build_trainer("npo", folder, **STEPS, **options)
    trainer.evaluators = [TofuEvaluator(tiny_tofu(), batch_size=4, max_new_tokens=6)]
    return trainer


def _save_and_resume(folder: Path, **options: Any) -> Any:
    whole = _evaluated(folder / "whole", **options)
    whole.train()
    whole.save_model(str(folder / "model"))
    resumed = _evaluated(folder / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(folder / "whole" / "checkpoint-2"))
    return whole, resumed


def _save_and_resume_sharded(folder: str) -> None:
    _say_that_there_are_gpus()
    whole, resumed = _save_and_resume(Path(folder), **HALVES)
    found = [_whole_parameters(trainer) for trainer in (whole, resumed)]
    if whole.is_world_process_zero():
        assert largest_difference(*found) == 0.0
        torch.save(
            [line for line in whole.state.log_history if "eval_model_utility" in line], f"{folder}/evaluations.pt"
        )


def test_evaluation_in_the_loop_checkpoints_resumption_and_the_saved_model(tmp_path: Path) -> None:
    (tmp_path / "sharded").mkdir()
    debug_launcher(_save_and_resume_sharded, args=(str(tmp_path / "sharded"),), num_processes=2)
    alone, _ = _save_and_resume(tmp_path / "alone")
    checkpoint = tmp_path / "sharded" / "whole" / "checkpoint-2"
    for part in ("pytorch_model_fsdp_0", "optimizer_0"):  # every rank's shard is known to be whole, or not
        assert damage(checkpoint) is None
        for shard in sorted((checkpoint / part).glob("*.distcp")):
            shard.rename(shard.with_suffix(".lost"))
            assert damage(checkpoint) == f"{part}/{shard.name} is missing"
            shard.with_suffix(".lost").rename(shard)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "sharded" / "model")
    assert largest_difference(parameters(alone.model), parameters(saved)) < TOLERANCE
    found = torch.load(tmp_path / "sharded" / "evaluations.pt")
    expected = [line for line in alone.state.log_history if "eval_model_utility" in line]
    assert len(found) == len(expected) == 2
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def _likelihoods_in_half_precision(folder: str) -> None:
    _say_that_there_are_gpus()
    trainer = build_trainer("npo", Path(folder), bf16=True, **HALVES)
    trainer.train()
    batch = trainer.data_collator([trainer.train_dataset.forget[index] for index in range(4)])
    nll = answer_likelihood(trainer.model_wrapped, batch).nll
    assert nll.dtype == torch.float32
    assert (nll != nll.bfloat16()).all()  # computed in half precision, but not rounded to it


def test_likelihoods_are_not_rounded(tmp_path: Path) -> None:
    debug_launcher(_likelihoods_in_half_precision, args=(str(tmp_path),), num_processes=2)
