"""What people do with a trainer, and what they get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, PeftModel, get_peft_model

from tests.small_runs import build_trainer, largest_difference, parameters, rows
from tests.tiny_models import build_model
from unlearn_hf.methods import EUPMUTrainer, NPOConfig


def test_model_by_path_object(tmp_path: Path) -> None:
    build_model().save_pretrained(tmp_path / "model")
    build_trainer("graddiff", tmp_path / "run", model=tmp_path / "model").train()  # type: ignore[arg-type]


def test_adapter_that_is_not_trainable(tmp_path: Path) -> None:
    model = get_peft_model(build_model(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path / "adapter")
    frozen = PeftModel.from_pretrained(build_model(), tmp_path / "adapter")
    with pytest.raises(ValueError, match="is_trainable=True"):
        build_trainer("graddiff", tmp_path, model=frozen)


def test_configuration_of_another_method(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="EUPMUTrainer takes a EUPMUConfig, not a NPOConfig"):
        EUPMUTrainer(build_model(), NPOConfig(output_dir=str(tmp_path)), rows(4, 1), rows(4, 2))  # type: ignore[arg-type]


def test_evaluation_of_raw_rows(tmp_path: Path) -> None:
    trainer = build_trainer("graddiff", tmp_path)
    metrics = trainer.evaluate([{"question": "Who wrote it?", "answer": "Ada Moren"}])
    assert metrics["eval_loss"] > 0


@pytest.mark.parametrize("case", ["eupmu", "eupmu-level-probe", "pdu", "famo", "gru"])
def test_second_start_is_like_the_first(case: str, tmp_path: Path) -> None:
    """From the same weights, the same run: nothing of the method is left over."""
    trainer = build_trainer(case, tmp_path)
    first = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    found = []
    for _ in range(2):
        trainer.model.load_state_dict(first)
        trainer.train()
        found.append(parameters(trainer.model))
    assert largest_difference(*found) == 0.0


def test_checkpoint_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"resume_from_checkpoint: .* is no checkpoint"):
        build_trainer("graddiff", tmp_path).train(resume_from_checkpoint=str(tmp_path))


@pytest.mark.parametrize(("metric", "greater"), [("eval_forget_prob", False), ("model_utility", True)])
def test_direction_of_our_metrics(metric: str, greater: bool, tmp_path: Path) -> None:
    config = NPOConfig(output_dir=str(tmp_path), metric_for_best_model=metric)
    assert config.greater_is_better is greater
    chosen = NPOConfig(output_dir=str(tmp_path), metric_for_best_model=metric, greater_is_better=True)
    assert chosen.greater_is_better


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"per_device_train_batch_size": 0},
        {"per_device_eval_batch_size": 0},
        {"gradient_accumulation_steps": 0},
        {"num_train_epochs": 0},
        {"max_steps": 0},
        {"seed": -1},
        {"dataloader_num_workers": -1},
        {"gradient_buffer_device": "nowhere"},
    ],
    ids=str,
)
def test_numbers_that_transformers_notices_late(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: "):
        NPOConfig(output_dir=str(tmp_path), **options)
