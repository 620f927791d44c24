"""GRU against surgery on single gradients, and what its average survives."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import pytest
import torch
from accelerate import Accelerator
from transformers import TrainerCallback

from tests.small_runs import build_trainer, largest_difference, parameters
from unlearn_hf.gradients.buffers import GradientBuffers
from unlearn_hf.methods import GRUConfig, GRUTrainer


def averages(trainer: Any) -> list[torch.Tensor]:
    return [value.clone() for value in trainer.retain_average.state_dict()["values"]]


def test_without_memory_it_is_unilateral_surgery(tmp_path: Path) -> None:
    results = []
    for case, options in (("gru", {"retain_momentum": 0.0}), ("surgery", {"forget_loss": "ga"})):
        trainer = build_trainer(case, tmp_path, forget_seed=2, retain=12, **options)  # the two sets conflict
        trainer.train()
        assert all(line["gradient_cosine"] < 0 for line in trainer.state.log_history[:3])
        results.append(parameters(trainer.model))
    assert largest_difference(*results) == 0.0


@pytest.mark.parametrize("options", [{}, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}])
def test_direction_is_orthogonal_to_the_average_of_true_gradients(tmp_path: Path, options: dict[str, int]) -> None:
    trainer = build_trainer("gru", tmp_path, forget_seed=2, retain=12, retain_momentum=0.6, **options)
    gradients: list[torch.Tensor] = []
    directions: list[torch.Tensor] = []
    original = trainer.gradients_collected

    def watch(scale: float) -> None:
        gradients.append(torch.cat([value.flatten() for value in trainer.gradients.collected("retain")]).double())
        original(scale)

    def keep(losses: Any) -> None:
        directions.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).double())

    trainer.gradients_collected = watch  # type: ignore[method-assign]
    trainer.before_step = keep  # type: ignore[method-assign]
    trainer.train()
    assert len(gradients) == 3  # once per optimizer step, whatever the micro-batches
    average = torch.zeros_like(gradients[0])
    for gradient, direction in zip(gradients, directions, strict=True):
        average = 0.6 * average + 0.4 * gradient
        assert abs(average @ direction) < 1e-5 * average.norm() * direction.norm()
    found = torch.cat([value.flatten() for value in averages(trainer)]).double()
    torch.testing.assert_close(found, average, rtol=1e-5, atol=1e-7)


def test_a_skipped_step_leaves_the_average_as_it_was(tmp_path: Path) -> None:
    seen: list[list[torch.Tensor]] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(averages(trainer))

    trainer = build_trainer("gru", tmp_path, callbacks=[Watch()])
    skipped = PropertyMock(side_effect=lambda: trainer.state.global_step == 1)
    with patch.object(Accelerator, "optimizer_step_was_skipped", skipped):
        trainer.train()
    first, second, third = seen
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(second, third, strict=True))


def test_a_gradient_that_overflows_does_not_enter_the_average(tmp_path: Path) -> None:
    """As in half precision: an infinite retain gradient gets weight zero, and the step may go ahead."""
    trainer = build_trainer("gru", tmp_path, max_steps=2, stop_on_divergence=False)
    original = GradientBuffers.collected

    def overflow(buffers: GradientBuffers, name: str) -> Any:
        collected = original(buffers, name)
        if trainer.state.global_step == 1:
            collected[0].fill_(float("inf"))  # type: ignore[union-attr]
        return collected

    with patch.object(GradientBuffers, "collected", overflow):
        trainer.train()
    assert all(torch.isfinite(value).all() for value in averages(trainer))
    once = build_trainer("gru", tmp_path, max_steps=1)
    once.train()
    assert all(torch.equal(a, b) for a, b in zip(averages(trainer), averages(once), strict=True))


def test_the_average_is_saved_with_the_checkpoint_and_restored_bit_for_bit(tmp_path: Path) -> None:
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = build_trainer("gru", tmp_path, **options)
    whole.train()
    resumed = build_trainer("gru", tmp_path, **options)
    taken: list[list[torch.Tensor]] = []
    begins = resumed.training_begins

    def watch() -> None:
        begins()
        taken.append(averages(resumed))

    resumed.training_begins = watch  # type: ignore[method-assign]
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    saved = torch.load(tmp_path / "checkpoint-2" / "method_state.pt", weights_only=True)["retain_average"]["values"]
    assert all(torch.equal(a, b) for a, b in zip(taken[0], saved, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(averages(whole), averages(resumed), strict=True))


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_bad_momentum_is_refused(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="retain_momentum"):
        GRUConfig(output_dir=str(tmp_path), retain_momentum=value)


def test_trainer_takes_its_own_configuration() -> None:
    assert GRUTrainer.config_class is GRUConfig
