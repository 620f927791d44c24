"""Every field of transformers' `TrainingArguments`: it works, or is refused before a model is loaded."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from tests.small_runs import build_trainer, largest_difference, parameters
from tests.tiny_models import build_model
from unlearn_hf.methods import GradDiffConfig, GradDiffTrainer

ROOT = Path(__file__).parents[2]

# A value to train with, each with a small run of its own.
WORK: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "num_train_epochs": 1.0,
    "max_steps": 2,
    "learning_rate": 0.01,
    "lr_scheduler_type": "cosine",
    "lr_scheduler_kwargs": {},
    "warmup_steps": 1,
    "optim": "adafactor",
    "optim_args": "momentum=0.5",
    "weight_decay": 0.1,
    "adam_beta1": 0.8,
    "adam_beta2": 0.9,
    "adam_epsilon": 1e-6,
    "gradient_accumulation_steps": 2,
    "average_tokens_across_devices": False,
    "max_grad_norm": 0.5,
    "bf16": True,
    "bf16_full_eval": True,
    "activation_checkpointing": True,
    "use_cache": False,
    "neftune_noise_alpha": 5.0,
    "torch_empty_cache_steps": 1,
    "logging_strategy": "epoch",
    "logging_steps": 2,
    "logging_first_step": True,
    "log_on_each_node": False,
    "logging_nan_inf_filter": True,
    "include_num_input_tokens_seen": "all",
    "log_level": "error",
    "log_level_replica": "error",
    "disable_tqdm": False,
    "run_name": "run",
    "project": "project",
    "eval_strategy": "epoch",
    "eval_steps": 1,
    "eval_delay": 1,
    "per_device_eval_batch_size": 2,
    "prediction_loss_only": True,
    "eval_on_start": True,
    "eval_do_concat_batches": False,
    "eval_use_gather_object": True,
    "eval_accumulation_steps": 1,
    "save_strategy": "epoch",
    "save_steps": 1,
    "save_total_limit": 1,
    "save_only_model": True,
    "ignore_data_skip": True,
    "restore_callback_states_from_checkpoint": True,
    "seed": 3,
    "data_seed": 4,
    "use_cpu": True,
    "accelerator_config": {"split_batches": False},
    "dataloader_drop_last": True,
    "dataloader_pin_memory": False,
    "dataloader_in_order": True,
    "ddp_find_unused_parameters": True,
    "ddp_bucket_cap_mb": 5,
    "ddp_broadcast_buffers": False,
    "ddp_timeout": 60,
    "skip_memory_metrics": False,
    "do_train": True,
    "do_eval": True,
    "do_predict": True,
    "greater_is_better": True,
}
# A value that is refused, by a `ValueError` that begins with the name of the field.
REFUSED: dict[str, Any] = {
    "label_smoothing_factor": 0.1,
    "remove_unused_columns": True,
    "train_sampling_strategy": "group_by_length",
    "length_column_name": "rows",
    "label_names": ["answers"],
    "include_for_metrics": ["inputs"],
    "batch_eval_metrics": True,
    "use_liger_kernel": True,
    "liger_kernel_config": {"rope": True},
    "auto_find_batch_size": True,
    "optim_target_modules": ["mlp"],
}
# Left to transformers, or tried elsewhere, and why.
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(("fp16", "fp16_full_eval", "tf32"), "need a GPU (tests/training/test_loss_scaling.py)"),
    **dict.fromkeys(("gradient_checkpointing", "gradient_checkpointing_kwargs"), "old names; transformers warns"),
    "activation_checkpointing_kwargs": "read with activation_checkpointing",
    **dict.fromkeys(("torch_compile", "torch_compile_backend", "torch_compile_mode"), "test_compilation.py"),
    **dict.fromkeys(("report_to", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), "trackers"),
    **dict.fromkeys(
        ("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push"), "network"
    ),
    "hub_revision": "network",
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model"), "test_unlearning.py, with evaluators"),
    **dict.fromkeys(("ddp_static_graph", "ddp_backend", "local_rank"), "need several processes"),
    **dict.fromkeys(("fsdp", "fsdp_config", "parallelism_config"), "test_sharded_training.py"),
    "deepspeed": "test_deepspeed.py",
    "output_dir": "in every run",
    "save_on_each_node": "needs several machines",
    "enable_jit_checkpoint": "answers to signals of a scheduler",
    "full_determinism": "changes the whole process",
    "debug": "a debugging aid of transformers",
    "resume_from_checkpoint": "an argument of train(), which transformers does not read from here",
    **dict.fromkeys(
        (
            "dataloader_num_workers",
            "dataloader_persistent_workers",
            "dataloader_prefetch_factor",
            "dataloader_multiprocessing_context",
        ),
        "worker processes (tests/data/test_forget_retain_pairs.py)",
    ),
}


def test_every_field_is_in_the_table() -> None:
    """Also those that a later version of transformers adds."""
    known = [*WORK, *REFUSED, *ELSEWHERE]
    assert len(known) == len(set(known))
    assert {field.name for field in dataclasses.fields(TrainingArguments)} == set(known)


@pytest.mark.parametrize("field", WORK)
def test_a_field_works(field: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 2, field: WORK[field]}
    if field.startswith("dataloader_") or field == "num_train_epochs":
        options["max_steps"] = -1
        options["num_train_epochs"] = 1
    if field == "optim_args":
        options["optim"] = "rmsprop"
    trainer = build_trainer("eupmu", tmp_path, **options)
    trainer.eval_dataset = {"forget": trainer.train_dataset.forget}
    before = parameters(trainer.model)
    trainer.train()
    assert largest_difference(before, parameters(trainer.model)) > 0


@pytest.mark.parametrize("field", REFUSED)
def test_a_field_is_refused_before_a_model_is_loaded(field: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: "):
        GradDiffTrainer(
            "a/model-that-is-not-there",
            GradDiffConfig(output_dir=str(tmp_path), use_cpu=True, **{field: REFUSED[field]}),
            forget_dataset=None,
            retain_dataset=None,
        )


@pytest.mark.parametrize("case", ["eupmu", "famo"])
def test_what_is_measured_again_has_the_noise_of_the_step(case: str, tmp_path: Path) -> None:
    """`neftune_noise_alpha`, with a rate that moves nothing: the losses after the step are those before it."""
    seen = []
    trainer = build_trainer(case, tmp_path, neftune_noise_alpha=50.0, learning_rate=1e-12, max_steps=1)
    trainer.after_step = lambda before, after: seen.append((before.retain, after.retain))  # type: ignore[method-assign]
    state = torch.get_rng_state()
    trainer.train()
    assert seen[0][1] == pytest.approx(seen[0][0], rel=1e-6)
    assert not torch.equal(state, torch.get_rng_state())
    plain = build_trainer(case, tmp_path, model=build_model(), learning_rate=1e-12, max_steps=1)
    plain.train()
    losses = [each.state.log_history[0]["retain_loss"] for each in (plain, trainer)]
    assert abs(losses[0] - losses[1]) > 1e-3


PROGRAM = """
from pathlib import Path
from tests.small_runs import build_trainer
trainer = build_trainer("npo", Path(FOLDER), disable_tqdm=False)
trainer.eval_dataset = {"forget": trainer.train_dataset.forget}
trainer.train()
trainer.evaluate()
"""


@pytest.mark.skipif(bool(os.environ.get("TQDM_DISABLE")), reason="TQDM_DISABLE is set")
def test_one_variable_of_the_environment_silences_every_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """tqdm reads it when it is imported, so in a process of its own: reference likelihoods, training, evaluation."""
    exec(PROGRAM, {"FOLDER": str(tmp_path / "shown")})
    shown = capsys.readouterr().err
    assert "Reference likelihoods" in shown
    assert "it/s]" in shown
    code = f"FOLDER = {str(tmp_path / 'silent')!r}\n{PROGRAM}"
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "it/s]" not in done.stderr
    assert "Reference likelihoods" not in done.stderr
