"""What must not change the result, for every method: micro-batches, ranks, padding, interruptions, adapters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.methods import invariances
from tests.methods.invariances import Parameters
from tests.small_runs import CASES, WITH_ADAPTERS, build_trainer, parameters
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


class Run(NamedTuple):
    before: Parameters
    after: Parameters
    not_reached: set[str]
    line: dict[str, float]
    needs_gram: bool


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """A case's run without overrides, trained once for all tests."""

    @functools.cache
    def trained(case: str) -> Run:
        trainer = build_trainer(case, tmp_path_factory.mktemp("usual"))
        before = parameters(trainer.model)
        trainer.train()
        # The layers above the one that is compared, and the head.
        above = {name for name in before if not _reaches_head(trainer) and _is_above(name, trainer)}
        return Run(before, parameters(trainer.model), above, trainer.state.log_history[0], trainer.needs_gram)

    return trained


@pytest.mark.parametrize("case", ALL)
def test_training_moves_every_parameter_and_logs(case: str, usual: Callable[[str], Run]) -> None:
    found = usual(case)
    line, before = found.line, found.before
    # `whp` puts the model before beside the one that was trained.
    after = {name: found.after.get(f"reinforced.{name}", found.after.get(name)) for name in before}
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert moved == before.keys() - found.not_reached
    assert {"loss", "forget_loss", "retain_loss", "forget_weight", "retain_weight"} <= line.keys()
    if found.needs_gram:
        assert {"forget_gradient_norm", "retain_gradient_norm", "gradient_cosine"} <= line.keys()
        assert -1 <= line["gradient_cosine"] <= 1
    assert ("dual_variable" in line) == case.startswith(("eupmu", "pdu"))


@pytest.mark.parametrize("case", ALL)
def test_four_rows_at_once_or_one_by_one(case: str, tmp_path: Path, usual: Callable[[str], Run]) -> None:
    invariances.check_accumulation(case, tmp_path, once=usual(case).after)


def test_one_rank_or_two(tmp_path: Path, usual: Callable[[str], Run]) -> None:
    invariances.check_two_ranks(ALL, tmp_path, {case: usual(case).after for case in ALL})


@pytest.mark.parametrize("case", ALL)
def test_activation_checkpointing_changes_nothing(case: str, tmp_path: Path) -> None:
    invariances.check_activation_checkpointing(case, tmp_path)


@pytest.mark.parametrize("case", ALL)
def test_padding_changes_nothing(case: str, tmp_path: Path, usual: Callable[[str], Run]) -> None:
    invariances.check_padding(case, tmp_path, narrow=usual(case).after)


@pytest.mark.parametrize("case", WITH_ADAPTERS)
def test_adapter_alone_is_trained(case: str, tmp_path: Path) -> None:
    invariances.check_adapter_alone_is_trained(case, tmp_path)


@pytest.mark.parametrize("case", ALL)
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(case: str, tmp_path: Path) -> None:
    invariances.check_resuming(case, tmp_path)
