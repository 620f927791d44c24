"""What a sweep was asked for: its options, the space, and every value of it looked at before the first trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn_hf.cli.arguments import DataArguments, ModelArguments, RequestArguments, RunArguments
from unlearn_hf.cli.evaluation_arguments import EvaluationArguments
from unlearn_hf.cli.option_names import all_fields, method_fields
from unlearn_hf.cli.parsing import (
    COMMAND_LINE,
    ArgumentsError,
    Setting,
    Settings,
    build,
    collect_settings,
    field_names,
    word_of,
)
from unlearn_hf.cli.sweep.space import Dimension, parse_space
from unlearn_hf.cli.training_run import TrainingRun
from unlearn_hf.cli.verbs import unlearn
from unlearn_hf.common.checks import check_count, check_positive
from unlearn_hf.common.extras import require
from unlearn_hf.common.options import option
from unlearn_hf.common.registry import nearest

_DEFAULT_TRIALS = 20
# What trials are compared on is the same for all of them.
_MEASURED = (
    *field_names([ModelArguments, DataArguments, EvaluationArguments, RequestArguments, RunArguments]),
    *("output_dir", "template", "max_length", "held_back_rows", "allow_overlap", "reference_cache"),
    *("verdict", "verdict_rows", "verdict_samples"),
)


@dataclass
class SweepArguments:
    """Sweep"""

    space: list[str] = option(
        [],
        "Options to search: learning_rate=1e-5:1e-3:log (a range; :int for whole numbers), epsilon=0,0.02 "
        "(a choice). Options that a trial's method does not have are left out of it.",
    )
    trials: int | None = option(
        None,
        f"Trials of the study, in all processes together. Default: {_DEFAULT_TRIALS}, or as many as fit into hours.",
    )
    hours: float | None = option(None, "No trial begins in this process after so many hours; the last one ends.")
    study: str | None = option(
        None,
        "Where the study is kept: a file (.db: SQLite, else Optuna's journal, for network folders, too), "
        "or a database URL. Processes that name the same study share it. Default: study.log in output_dir.",
    )
    study_name: str = option("sweep", "Name of the study there.")
    output_dir: str = option("runs/sweep", "Folder for trials, table, picture and report.")
    prune: bool = option(True, "End trials whose trade-off is below the median of the others (needs stop_when).")
    keep_all_models: bool = option(False, "Keep the weights of trials that others beat, too.")
    sweep_seed: int = option(0, "Seed of what is tried; seed is that of training.")
    launcher: str | None = option(
        None, "What runs a trial, such as 'accelerate launch --num_processes 2 -m unlearn_hf'."
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a budget that is not positive.
            ImportError: without Optuna.
        """
        check_count("trials", self.trials)
        check_positive("hours", self.hours)
        if self.trials is None and self.hours is None:
            self.trials = _DEFAULT_TRIALS
        require("optuna", "sweep", "sweep")


@dataclass
class Plan:
    """What was asked for, checked.

    Attributes:
        arguments: of the sweep.
        space: what is searched.
        settings: what all trials share, as it was given.
        example: one trial, for what must be looked at before all of them.
    """

    arguments: SweepArguments
    space: list[Dimension]
    settings: Settings
    example: TrainingRun

    @property
    def method(self) -> str | None:
        """The method, unless it is searched."""
        return word_of(self.settings, "method")


def first_look(argv: Sequence[str]) -> Plan:
    """Read files and command line without torch.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    settings, problems = collect_settings(argv, all_fields())
    own = {name: settings.pop(name) for name in field_names([SweepArguments]) if name in settings}
    (arguments,) = build((SweepArguments,), own, problems)
    space = parse_space(arguments.space)
    problems = _misplaced(space, settings)
    if problems:
        raise ArgumentsError(problems)
    for dimension in space:
        settings.pop(dimension.name, None)  # a value of a file, which the search takes the place of
    return Plan(arguments, space, settings, _example(space, settings, arguments.output_dir))


def _misplaced(space: Sequence[Dimension], settings: Settings) -> list[str]:
    """Options that are no part of a search, or of its trials."""
    known = all_fields() - set(field_names([SweepArguments]))
    found = [
        f"space: {name}: unknown{nearest(name, known) or '; unlearn-hf unlearn --help_all lists what there is'}"
        for name in (dimension.name for dimension in space)
        if name not in known and name not in _MEASURED
    ]
    found += [
        f"space: {dimension.name}: it decides what trials are measured on; give it as --{dimension.name}."
        for dimension in space
        if dimension.name in _MEASURED
    ]
    for dimension in space:
        setting = settings.get(dimension.name)
        if setting is not None and setting.origin == COMMAND_LINE:
            found.append(f"space: {dimension.name} is given as --{dimension.name}, too; leave out one of them.")
    for name in ("resume", "overwrite", "dry_run"):
        if name in settings:
            found.append(f"{name}: a sweep goes on by itself; leave it out, or name another output_dir.")
    if (word_of(settings, "verdict") or "true").lower() in ("false", "no", "off", "0"):
        found.append("verdict: false leaves nothing to choose by; leave it out.")
    return found


def _example(space: Sequence[Dimension], settings: Settings, folder: str) -> TrainingRun:
    """Look at every value of every dimension, with every method that has it; returns the first combination.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    methods = next((each.choices for each in space if each.name == "method"), (word_of(settings, "method") or "",))
    problems: dict[str, None] = {}
    examples: list[TrainingRun] = []

    def look(values: dict[str, str], name: str = "") -> None:
        given = {each: Setting([value], COMMAND_LINE) for each, value in values.items() if value}
        try:
            examples.append(unlearn.look_at({**settings, **given}))
        except ArgumentsError as found:
            mine = f"{COMMAND_LINE}: {name}: "
            for line in found.problems:
                hint = "; end the range with :int" if line.startswith(mine) and "whole number" in line else ""
                problems[line.replace(mine, f"space: {name}: ", 1) + hint] = None

    for method in methods:
        others = method_fields(besides=method) if method in unlearn.methods() else {}
        kept = [each for each in space if len(methods) == 1 or each.name not in others]
        dimensions = [each for each in kept if each.name != "method"]
        first = {"output_dir": str(Path(folder) / "trial"), "method": method}
        first |= {each.name: each.samples[0] for each in dimensions}
        look(first, dimensions[0].name if dimensions else "method")
        for each in dimensions:
            for value in each.samples[1:]:
                look({**first, each.name: value}, each.name)
    if len(methods) > 1:
        foreign = [set(method_fields(besides=method)) for method in methods if method in unlearn.methods()]
        lacking = {each.name for each in space}.intersection(*foreign)
        problems |= {f"space: {name}: none of the methods {', '.join(methods)} has it.": None for name in lacking}
    if problems:
        raise ArgumentsError(list(problems))
    return examples[0]
