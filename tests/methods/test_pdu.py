"""PDU against its closed form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.small_runs import build_trainer
from unlearn_hf.methods import PDUConfig


def logged(trainer: Any, name: str) -> list[float]:
    return [line[name] for line in trainer.state.log_history if name in line]


def test_the_dual_follows_the_level(tmp_path: Path) -> None:
    """`dual <- max(0, dual + step (l_r - level))`, the dual in force being that of the step before."""
    options: dict[str, Any] = {"largest_retain_loss": 6.05, "dual_learning_rate": 2.0, "initial_dual": 0.1}
    trainer = build_trainer("pdu", tmp_path, max_steps=6, learning_rate=0.2, **options)
    trainer.train()
    expected = 0.1
    for loss, dual, weight in zip(
        logged(trainer, "retain_loss"),
        logged(trainer, "dual_variable"),
        logged(trainer, "retain_weight"),
        strict=True,
    ):
        assert dual == weight == pytest.approx(expected, abs=1e-6)
        expected = max(0.0, expected + 2.0 * (loss - 6.05))
    assert trainer.dual.value == pytest.approx(expected, abs=1e-6)
    assert len({*logged(trainer, "dual_variable")}) > 2


def test_it_stays_at_zero_while_the_loss_is_low_and_rises_again(tmp_path: Path) -> None:
    low = build_trainer("pdu", tmp_path, largest_retain_loss=20.0)
    low.train()
    assert low.dual.value == 0.0
    high = build_trainer("pdu", tmp_path, largest_retain_loss=1.0)
    high.train()
    assert high.dual.value > 5.0


def test_the_default_level_is_that_before_unlearning(tmp_path: Path) -> None:
    trainer = build_trainer("pdu", tmp_path, max_steps=1, retain_tolerance=0.3, initial_dual=1.0)
    trainer.train()
    assert trainer.dual.value == pytest.approx(1.0 - 0.3, abs=1e-5)


def test_nothing_moves_during_warm_up(tmp_path: Path) -> None:
    trainer = build_trainer("pdu-level", tmp_path, dual_warmup_epochs=2, max_steps=8)  # three steps an epoch
    trainer.train()
    duals = logged(trainer, "dual_variable")
    assert duals[:7] == [1.0] * 7  # the seventh step is the first after two epochs; what it does shows in the eighth
    assert duals[7] != 1.0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"dual_learning_rate": 0.0}, "dual_learning_rate"),
        ({"initial_dual": -1.0}, "initial_dual"),
        ({"dual_warmup_epochs": -1}, "dual_warmup_epochs"),
        ({"largest_retain_loss": -1.0}, "largest_retain_loss"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{field}:"):
        PDUConfig(output_dir=str(tmp_path), **options)
