"""`unlearn-hf sweep`."""

from __future__ import annotations

import json
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from unlearn_hf.cli.arguments import DataArguments, EvaluationArguments, ModelArguments, RunArguments
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
from unlearn_hf.cli.run_folder import check_run_folder, hide_secrets
from unlearn_hf.cli.sweep.space import Dimension, parse_space
from unlearn_hf.cli.training_run import TrainingRun
from unlearn_hf.cli.verbs import Verb, unlearn
from unlearn_hf.common.checks import check_count, check_positive
from unlearn_hf.common.extras import require
from unlearn_hf.common.registry import nearest

if TYPE_CHECKING:
    from unlearn_hf.cli.sweep.study import SharedStudy

_DEFAULT_TRIALS = 20
_HELD_BACK = 32
_HOPELESS = 3
_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# What trials are compared on is the same for all of them.
_MEASURED = (
    *field_names([ModelArguments, DataArguments, EvaluationArguments, RunArguments]),
    *("output_dir", "template", "max_length", "held_back_rows", "allow_overlap", "reference_cache"),
    *("verdict", "verdict_rows", "verdict_samples"),
)
# What says nothing about how a trial comes out.
_FREE = ("output_dir", "reference_cache", "disable_tqdm", "run_name", "report_to", "logging_steps")


@dataclass
class SweepArguments:
    """Sweep"""

    space: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Options to search: learning_rate=1e-5:1e-3:log (a range; :int for whole numbers), epsilon=0,0.02 "
            "(a choice). Options that a trial's method does not have are left out of it."
        },
    )
    trials: int | None = field(
        default=None,
        metadata={"help": f"Trials of the study, in all processes together. Default: {_DEFAULT_TRIALS}, or as many as "
                  "fit into hours."},
    )  # fmt: skip
    hours: float | None = field(
        default=None, metadata={"help": "No trial begins in this process after so many hours; the last one ends."}
    )
    study: str | None = field(
        default=None,
        metadata={
            "help": "Where the study is kept: a file (.db: SQLite, else Optuna's journal, for network folders, too), "
            "or a database URL. Processes that name the same study share it. Default: study.log in output_dir."
        },
    )
    study_name: str = field(default="sweep", metadata={"help": "Name of the study there."})
    output_dir: str = field(
        default="runs/sweep", metadata={"help": "Folder for trials, table, picture and report."}
    )  # fmt: skip
    prune: bool = field(
        default=True,
        metadata={"help": "End trials whose trade-off is below the median of the others (needs stop_when)."},
    )
    keep_all_models: bool = field(
        default=False, metadata={"help": "Keep the weights of trials that others beat, too."}
    )  # fmt: skip
    sweep_seed: int = field(default=0, metadata={"help": "Seed of what is tried; seed is that of training."})
    launcher: str | None = field(
        default=None,
        metadata={"help": "What runs a trial, such as 'accelerate launch --num_processes 2 -m unlearn_hf'."},
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


ARGUMENTS = (SweepArguments, *unlearn.ARGUMENTS)


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


def run(argv: Sequence[str]) -> int:
    """Search."""
    plan = first_look(argv)
    from unlearn_hf.cli.data import describe_data, load_data
    from unlearn_hf.cli.training import check_inputs

    if problems := check_inputs(plan.example):
        raise ArgumentsError(problems)
    check_run_folder(plan.example.folder, overwrite=False, resume=False)
    data = load_data(plan.example.data)
    trained = {name: data.part(name) for name in ("forget", "retain")}
    # Own rows are held back by a default of `unlearn`.
    held = {"held_back_rows": str(min(_HELD_BACK, len(trained["retain"]) // 5))} if plan.example.data.benchmark else {}
    words = [*_words(plan.settings), *_given_unless(plan.settings, held)]
    folder = Path(plan.arguments.output_dir)
    study = _study(plan, describe_data(data, trained)["trained_on"])
    from unlearn_hf.cli.sweep.outcome import conclude
    from unlearn_hf.cli.sweep.trials import TrialRunner

    for_trials = {"save_strategy": "no", "disable_tqdm": "true", "reference_cache": str(folder / "reference")}
    runner = TrialRunner(
        study,
        folder,
        [*words, *_given_unless(plan.settings, for_trials)],
        plan.space,
        plan.method,
        plan.arguments.prune,
        plan.arguments.launcher,
    )
    with _giving_back():
        _work(plan.arguments, study, runner)
    program = shlex.split(plan.arguments.launcher or "unlearn-hf")
    told = hide_secrets({name: setting.words for name, setting in plan.settings.items()})
    shown = {name: setting for name, setting in plan.settings.items() if told[name] == setting.words}
    shown_words = [*_words(shown), *_given_unless(shown, held)]
    return 0 if conclude(study.trials(), folder, shown_words, program) else 1


def _study(plan: Plan, trained_on: dict[str, Any]) -> SharedStudy:
    """The study, opened or begun; nothing is written before all of it was checked."""
    from unlearn_hf.cli.sweep.study import SharedStudy

    arguments = plan.arguments
    folder = Path(arguments.output_dir)
    options = {name: str(value) for name, value in hide_secrets(plan.example.given()).items()}
    searched = {dimension.name for dimension in plan.space}
    project = {
        "options": {name: value for name, value in options.items() if name not in searched | set(_FREE)},
        "data": {name: f"{facts['rows']} rows, {facts['sha256'][:12]}" for name, facts in trained_on.items()},
        "space": {dimension.name: dimension.text for dimension in plan.space},
    }
    where = arguments.study or str(folder / "study.log")
    study = SharedStudy(where, arguments.study_name, project, arguments.sweep_seed)
    if study.is_new and any(folder.glob("trial-*")):
        raise ArgumentsError([f"output_dir: {str(folder)!r} holds trials of another study; name another folder."])
    folder.mkdir(parents=True, exist_ok=True)
    return study


def _work(arguments: SweepArguments, study: SharedStudy, runner: Any) -> None:
    """Run trials until the budget is spent.

    Raises:
        ValueError: when the first trials all failed.
        KeyboardInterrupt: when interrupted or terminated; the trial is given back.
    """
    from optuna.trial import TrialState

    from unlearn_hf.cli.sweep.outcome import drop_beaten_weights, results
    from unlearn_hf.cli.sweep.study import repeated

    begin = time.monotonic()
    while arguments.hours is None or time.monotonic() - begin < 3600 * arguments.hours:
        trial = study.claim(arguments.trials)
        if trial is None:
            break
        print(f"trial {trial.number}: begins", flush=True)
        try:
            line = runner.run(trial)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the trial is given back; the same command goes on") from None
        options = " ".join(f"{name}={value}" for name, value in trial.user_attrs.get("options", {}).items())
        print(f"trial {trial.number}: {options}: {line}", flush=True)
        trials = study.trials()
        again = repeated(trials)
        ended = [
            each
            for each in trials
            if each.state.is_finished() and each.number not in again and not each.user_attrs.get("surplus")
        ]
        if len(ended) == _HOPELESS and all(each.state == TrialState.FAIL for each in ended):
            raise ValueError(f"the first {_HOPELESS} trials failed, the last one with: {line}")
        if not arguments.keep_all_models:
            drop_beaten_weights(results(trials))


@contextmanager
def _giving_back() -> Iterator[None]:
    """Whatever ends this process, but SIGKILL, gives its trial back first.

    What is ignored (SIGINT in a script's background, SIGHUP under nohup) stays ignored here, by a function: as such it
    would be inherited by the trials, which are ended by SIGINT.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in before.items():
        signal.signal(number, _ignore if handler == signal.SIG_IGN else _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _ignore(number: int, frame: Any) -> None:
    """Do nothing."""


def _words(settings: Settings) -> list[str]:
    """Settings as words of the command line, whatever they came from."""
    return [word for name, setting in settings.items() for word in (f"--{name}", *_values(setting))]


def _values(setting: Setting) -> list[str]:
    if setting.origin == COMMAND_LINE:
        return setting.words
    value = setting.value
    if isinstance(value, list | dict):
        return [json.dumps(value)]
    return ["none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)]


def _given_unless(settings: Settings, values: dict[str, str]) -> list[str]:
    """Options as words, without those that are given."""
    return [word for name, value in values.items() if name not in settings for word in (f"--{name}", value)]


VERB = Verb(
    run,
    "Search options of unlearn: most forgetting with what is to be kept at 95 %.",
    examples=(
        "unlearn-hf sweep --config configs/mini/eupmu.yaml --space learning_rate=1e-5:1e-3:log epsilon=0,0.02",
        "unlearn-hf sweep --method npo --model_name_or_path M --forget_file f.jsonl --retain_file r.jsonl "
        "--space learning_rate=1e-5:1e-3:log --trials 20 --study sqlite:///study.db",
    ),
    arguments=ARGUMENTS,
    training_config=unlearn.training_config,
)
