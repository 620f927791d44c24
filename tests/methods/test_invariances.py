"""What must not change the result, for every method: micro-batches, ranks, padding, interruptions, adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.methods import invariances
from tests.small_runs import CASES, WITH_ADAPTERS, build_trainer, parameters, trained_part
from unlearn_hf.methods import METHODS
from unlearn_hf.training.declared_needs import DeclaredNeeds
from unlearn_hf.training.unlearning import UnlearningTrainer

ALL = list(CASES)


def test_every_method_is_in_the_table() -> None:
    assert {method for method, _ in CASES.values()} == set(METHODS)


def _reaches_head(trainer: UnlearningTrainer) -> bool:
    declared = DeclaredNeeds(trainer.args)
    return any(declared.layers(name) is None for name in declared.objectives)


def _is_above(name: str, trainer: UnlearningTrainer) -> bool:
    if name.startswith("model.layers."):
        return int(name.split(".")[2]) > trainer.args.parameters_of(trainer.args.retain_objective).layer
    return name.startswith(("model.norm", "lm_head"))


@pytest.mark.parametrize("case", ALL)
def test_training_moves_every_parameter_and_logs(case: str, tmp_path: Path) -> None:
    trainer = build_trainer(case, tmp_path)
    before = parameters(trainer.model)
    trainer.train()
    after = parameters(trained_part(trainer.model))
    moved = {name for name in before if (before[name] != after[name]).any()}
    # What no objective reaches stays as it is: the layers above the one that is compared, and the head.
    assert moved == {name for name in before if _reaches_head(trainer) or not _is_above(name, trainer)}
    line = trainer.state.log_history[0]
    assert {"loss", "forget_loss", "retain_loss", "forget_weight", "retain_weight"} <= line.keys()
    if trainer.needs_gram:
        assert {"forget_gradient_norm", "retain_gradient_norm", "gradient_cosine"} <= line.keys()
        assert -1 <= line["gradient_cosine"] <= 1
    assert ("dual_variable" in line) == case.startswith(("eupmu", "pdu"))


@pytest.mark.parametrize("case", ALL)
def test_four_rows_at_once_or_one_by_one(case: str, tmp_path: Path) -> None:
    invariances.check_accumulation(case, tmp_path)


def test_one_rank_or_two(tmp_path: Path) -> None:
    invariances.check_two_ranks(ALL, tmp_path)


@pytest.mark.parametrize("case", ALL)
def test_activation_checkpointing_changes_nothing(case: str, tmp_path: Path) -> None:
    invariances.check_activation_checkpointing(case, tmp_path)


@pytest.mark.parametrize("case", ALL)
def test_padding_changes_nothing(case: str, tmp_path: Path) -> None:
    invariances.check_padding(case, tmp_path)


@pytest.mark.parametrize("case", WITH_ADAPTERS)
def test_adapter_alone_is_trained(case: str, tmp_path: Path) -> None:
    invariances.check_adapter_alone_is_trained(case, tmp_path)


@pytest.mark.parametrize("case", ALL)
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(case: str, tmp_path: Path) -> None:
    invariances.check_resuming(case, tmp_path)
