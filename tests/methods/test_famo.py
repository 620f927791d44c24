"""FAMO against its formula and against TorchJD."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_runs import build_trainer
from tests.tiny_models import build_model
from unlearn_hf.methods import FAMOConfig
from unlearn_hf.methods.famo import LogitWeights
from unlearn_hf.training.optimizer_step import Losses


def test_the_first_step_moves_weight_to_the_slower_loss() -> None:
    weights = LogitWeights(0.025, 0.0)
    assert weights.values.tolist() == [0.5, 0.5]
    weights.update(Losses(2.0, 3.0), Losses(1.0, 2.9))
    # Adam's first step has the size of its rate, down for the faster loss and up for the slower one.
    expected = 1 / (1 + math.exp(0.05))
    assert weights.values[0].item() == pytest.approx(expected, rel=1e-6)
    assert weights.values.sum().item() == pytest.approx(1.0)


def test_equal_relative_progress_changes_nothing() -> None:
    weights = LogitWeights(0.025, 1e-3)
    weights.update(Losses(2.0, 0.3), Losses(1.0, 0.15))
    assert weights.values.tolist() == pytest.approx([0.5, 0.5], abs=1e-9)


def test_weights_agree_with_torchjd_over_a_run(tmp_path: Path) -> None:
    """The weights in force in every step of a run are the derivatives of TorchJD's scalar."""
    scalarization = pytest.importorskip("torchjd.scalarization")
    options: dict[str, Any] = {"logit_learning_rate": 0.3, "logit_weight_decay": 1e-2, "max_steps": 6}
    trainer = build_trainer("famo", tmp_path, learning_rate=0.3, **options)
    seen: list[tuple[Losses, Losses, tuple[float, float]]] = []
    original = trainer.after_step

    def watch(before: Losses, after: Losses) -> None:
        seen.append((before, after, trainer._weights))
        original(before, after)

    trainer.after_step = watch  # type: ignore[method-assign]
    trainer.train()
    theirs = scalarization.FAMO(2, lr=0.3, weight_decay=1e-2).double()
    for before, after, weights in seen:
        losses = torch.tensor(before, dtype=torch.float64, requires_grad=True)
        theirs(losses).backward()
        assert losses.grad is not None
        assert list(weights) == pytest.approx(losses.grad.tolist(), rel=1e-6)
        assert sum(weights) == pytest.approx(1.0)
        theirs.update(torch.tensor(after, dtype=torch.float64))
    assert len({weights for _, _, weights in seen}) == 6


def test_both_losses_are_measured_again_under_the_same_dropout(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 1, "learning_rate": 1e-12, "gradient_accumulation_steps": 2}
    trainer = build_trainer("famo", tmp_path, model=build_model(dropout=0.3), per_device_train_batch_size=2, **options)
    seen = []
    trainer.after_step = lambda before, after: seen.append((before, after))  # type: ignore[method-assign]
    trainer.train()
    ((before, after),) = seen
    assert list(after) == pytest.approx(list(before), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"forget_loss": "ga"}, "forget_loss"),
        ({"retain_loss": "kl"}, "retain_loss"),
        ({"logit_learning_rate": 0.0}, "logit_learning_rate"),
        ({"logit_weight_decay": -1.0}, "logit_weight_decay"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{field}:"):
        FAMOConfig(output_dir=str(tmp_path), **options)
