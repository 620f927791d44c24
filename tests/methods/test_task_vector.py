"""Task vectors: the formula, adapters, resuming, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from tests.small_runs import build_trainer, largest_difference, parameters
from tests.tiny_models import build_model
from unlearn_hf.methods import TaskVectorConfig


def fine_tuned(folder: Path, **options: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A run, and its weights as they were before the vector was turned round."""
    seen: list[dict[str, torch.Tensor]] = []
    trainer = build_trainer("task-vector", folder, **options)
    original = trainer.finish_with  # type: ignore[attr-defined]

    def watch(before: dict[str, torch.Tensor]) -> None:
        seen.append(parameters(trainer.model))
        original(before)

    trainer.finish_with = watch  # type: ignore[attr-defined]
    trainer.train()
    return trainer, seen[0]


def test_it_fine_tunes_on_the_forget_rows_alone_and_goes_the_other_way(tmp_path: Path) -> None:
    start = parameters(build_model())
    trainer, tuned = fine_tuned(tmp_path, task_vector_scale=1.5)
    _, same = fine_tuned(tmp_path, task_vector_scale=1.5, retain=40)
    assert largest_difference(tuned, same) == 0.0
    for name, value in parameters(trainer.model).items():
        expected = start[name] - 1.5 * (tuned[name] - start[name])
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
    losses = [line["forget_loss"] for line in trainer.state.log_history if "forget_loss" in line]
    ascent = build_trainer("graddiff", tmp_path, retain_weight=0.0, learning_rate=0.05, max_steps=1)
    descent, _ = fine_tuned(tmp_path, max_steps=1, task_vector_scale=1.0)
    ascent.train()
    # after one step, the mirror image of descent is ascent
    assert largest_difference(parameters(descent.model), parameters(ascent.model)) < 1e-6
    assert len(losses) == 3


def test_an_adapter_gets_a_negative_weight(tmp_path: Path) -> None:
    adapter = LoraConfig(r=4, target_modules="all-linear")
    torch.manual_seed(0)
    trainer, tuned = fine_tuned(tmp_path, peft_config=adapter, task_vector_scale=2.0)
    after = parameters(trainer.model)
    pairs = [name for name in after if "lora_B" in name]
    assert pairs
    for name in pairs:
        down = name.replace("lora_B", "lora_A")
        assert tuned[name].any()
        torch.testing.assert_close(after[name] @ after[down], -2.0 * (tuned[name] @ tuned[down]))


def test_resumed_it_goes_back_from_the_model_the_run_began_with(tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = build_trainer("task-vector", tmp_path, **options)
    whole.train()
    resumed = build_trainer("task-vector", tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert largest_difference(parameters(whole.model), parameters(resumed.model)) == 0.0


@pytest.mark.parametrize("case", ["task-vector", "whp"])
def test_rows_to_keep_can_be_left_out(case: str, tmp_path: Path) -> None:
    with_rows, without = build_trainer(case, tmp_path), build_trainer(case, tmp_path, retain=0)
    for trainer in (with_rows, without):
        trainer.train()
    assert largest_difference(parameters(with_rows.model), parameters(without.model)) == 0.0
    with pytest.raises(ValueError, match="log_gradient_geometry"):
        build_trainer(case, tmp_path, retain=0, log_gradient_geometry="total")
    with pytest.raises(ValueError, match="retain_dataset: the dataset is empty"):
        build_trainer("graddiff", tmp_path, retain=0)


@pytest.mark.parametrize(
    "options",
    [
        {"task_vector_scale": 0.0},
        {"task_vector_scale": float("inf")},
        {"forget_loss": "npo"},
        {"retain_budget": 0.1},
        {"autolr": True, "lr_scheduler_type": "constant"},
        {"eval_strategy": "epoch"},
    ],
)
def test_bad_options_are_named(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TaskVectorConfig(output_dir=str(tmp_path), **options)


def test_a_trained_adapter_is_refused(tmp_path: Path) -> None:
    adapter = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    with pytest.raises(ValueError, match="trained already"):
        build_trainer("task-vector", tmp_path, peft_config=adapter)


def test_a_diverged_fine_tuning_is_not_subtracted(tmp_path: Path) -> None:
    trainer = build_trainer("task-vector", tmp_path, max_steps=3)
    weight = trainer.model.lm_head.weight
    weight.register_hook(lambda gradient: gradient / (0 if trainer.state.global_step == 2 else 1))
    with pytest.warns(UserWarning, match="so it is not used"):
        trainer.train()
    assert trainer.divergence is not None
    _, tuned = fine_tuned(tmp_path, max_steps=2)
    assert largest_difference(tuned, parameters(trainer.model)) == 0.0
