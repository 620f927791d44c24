"""Objectives that are defined outside the package, in few lines, go through everything that its own go through."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.cli.own_rows import write_rows
from tests.methods import invariances
from tests.small_runs import CASES, build_trainer, largest_difference, parameters
from unlearn_hf import FORGET_OBJECTIVES, Needs, Objective, register_objective
from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.likelihood.answers import AnswerLikelihood
from unlearn_hf.objectives.base import NoParameters


@dataclass(frozen=True)
class Steering:
    layer: int = field(default=1, metadata={"help": "Layer whose output is steered."})
    push: float = field(default=3.0, metadata={"help": "Length it is steered to."})


def steer(likelihood: AnswerLikelihood, parameters: Steering) -> Tensor:
    """RMU's: hidden states of a layer towards a fixed direction."""
    assert likelihood.hidden is not None
    target = parameters.push * torch.ones_like(likelihood.hidden) / likelihood.hidden.shape[-1] ** 0.5
    return likelihood.sum_by_sequence((likelihood.hidden - target).square().mean(-1))


@dataclass(frozen=True)
class Preference:
    sharpness: float = field(default=0.1, metadata={"help": "Inverse temperature."})


def prefer(likelihood: AnswerLikelihood, parameters: Preference) -> Tensor:
    """DPO's: another answer preferred to the row's own."""
    other = likelihood.alternative
    assert other is not None
    assert other.reference_nll is not None
    margin = (other.reference_nll - other.nll) - (likelihood.reference_nll - likelihood.nll)
    return F.softplus(-parameters.sharpness * margin)


@dataclass(frozen=True)
class Adjustment:
    lowered: float = field(default=10.0, metadata={"help": "By how much the true token's logit is lowered."})


def adjust(logits: Tensor, targets: Tensor, reference: Tensor | None, parameters: Adjustment) -> Tensor:
    """UNDIAL's: the distribution before unlearning with the true token's logit lowered."""
    assert reference is not None
    wanted = reference.scatter_add(-1, targets[:, None], torch.full_like(reference[:, :1], -parameters.lowered))
    return F.cross_entropy(logits, wanted.softmax(-1), reduction="none")


OUTSIDE = {
    "steer": Objective(
        name="steer",
        summary="hidden states towards a direction",
        paper="a paper on steering",
        function=steer,
        needs=Needs(nll=False, hidden=True),
        parameters=Steering,
    ),
    "prefer": Objective(
        name="prefer",
        summary="another answer preferred",
        paper="a paper on preferences",
        unit="sequences",
        function=prefer,
        needs=Needs(answers=("own", "alternative"), reference=("nll",)),
        parameters=Preference,
    ),
    "adjust": Objective(
        name="adjust",
        summary="a teacher with the answer left out",
        paper="a paper on teachers",
        token_function=adjust,
        needs=Needs(nll=False, reference=("logits",)),
        parameters=Adjustment,
    ),
}
OPTIONS = {"steer": ("push", "2.5"), "prefer": ("sharpness", "0.2"), "adjust": ("lowered", "8")}
METHODS = {"steer": "graddiff", "prefer": "eupmu", "adjust": "gradient_surgery"}


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    for name, objective in OUTSIDE.items():
        register_objective(objective, "forget")
        CASES[name] = (METHODS[name], {"forget_loss": name})
    yield
    for name in OUTSIDE:
        FORGET_OBJECTIVES.remove(name)
        del CASES[name]


@pytest.mark.parametrize("name", OUTSIDE)
def test_command_line_run_folder_evaluation_and_resume(
    name: str, unlearn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option, value = OPTIONS[name]
    chosen = {"method": METHODS[name], "forget_loss": name, option: value}
    # a condition that never holds: the run is to end at its last step
    stop = ("--stop_when", "forget_prob < 0")
    steps = ("--save_steps", "2", "--save_strategy", "steps", "--keep_checkpoints", *stop)
    assert unlearn("--max_steps", "4", *steps, **chosen) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["configuration"]["forget_loss"] == name
    assert record["configuration"][option] == float(value)
    assert record["metrics"]
    assert unlearn("--max_steps", "4", *steps, "--resume", **{**chosen, option: "4.5"}) == BAD_INPUT
    assert f"resume: {option}: {float(value)} -> 4.5" in capsys.readouterr().err
    assert unlearn("--max_steps", "6", *steps, "--resume", **chosen) == 0
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 6


@pytest.mark.parametrize("name", OUTSIDE)
def test_list_and_help_know_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "objectives"]) == 0
    assert f"  {name}: forget: {OUTSIDE[name].summary}\n      {OUTSIDE[name].paper}" in capsys.readouterr().out
    assert main(["unlearn", "--method", METHODS[name], "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"--{OPTIONS[name][0]}" in shown
    assert f"default of {name}: " in " ".join(shown.split())


@pytest.mark.parametrize("name", OUTSIDE)
def test_parameter_of_another_objective(
    name: str, unlearn: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    option, value = OPTIONS[name]
    assert unlearn(**{"forget_loss": "npo", option: value}) == BAD_INPUT
    assert (
        f"{option}: {float(value)} has no meaning for forget_loss 'npo' and retain_loss 'nll'; {name} has it."
        in capsys.readouterr().err
    )


def test_a_column_of_alternative_answers(unlearn: Callable[..., int], tmp_path: Path) -> None:
    rows = [{"question": f"Who is {i}?", "answer": f"It is {i}.", "instead": "Nobody knows."} for i in range(8)]
    write_rows(tmp_path / "rows.jsonl", rows)
    chosen = {"method": "graddiff", "forget_loss": "prefer", "forget_file": str(tmp_path / "rows.jsonl")}
    assert unlearn("--alternative_column", "instead", **chosen) == 0
    assert unlearn("--alternative_column", "absent", "--overwrite", **chosen) == BAD_INPUT


CHECKS: dict[str, Callable[[str, Path], None]] = {
    "accumulation": invariances.check_accumulation,
    "padding": invariances.check_padding,
    "adapter": invariances.check_adapter_alone_is_trained,
    "activation checkpointing": invariances.check_activation_checkpointing,
    "resuming": invariances.check_resuming,
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", OUTSIDE)
def test_what_must_not_change_the_result(name: str, check: str, tmp_path: Path) -> None:
    CHECKS[check](name, tmp_path)


def test_two_ranks(tmp_path: Path) -> None:
    invariances.check_two_ranks(list(OUTSIDE), tmp_path)


@pytest.mark.parametrize("name", OUTSIDE)
def test_packed_or_padded(name: str, tmp_path: Path) -> None:
    found = []
    for packing in ("true", "false"):
        trainer = build_trainer(name, tmp_path, packing=packing)
        trainer.train()
        found.append(parameters(trainer.model))
    assert largest_difference(*found) < 2e-6


def test_names_and_parameters_that_are_taken() -> None:
    def objective(name: str, parameters: Any = NoParameters, **options: Any) -> Objective:
        return Objective(name=name, summary="", paper="", function=steer, parameters=parameters, **options)

    @dataclass
    class Other:
        push: str = "hard"

    for wrong, side, message in (
        (objective("npo"), "forget", "is there already"),
        (objective("other", Other), "forget", "another type in 'steer'"),
        (objective("other", needs=Needs(answers=("alternative",))), "retain", "no alternative answer"),
    ):
        with pytest.raises(ValueError, match=message):
            register_objective(wrong, side)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give a function"):
        Objective(name="empty", summary="", paper="")
