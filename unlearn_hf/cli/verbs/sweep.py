"""`unlearn-hf sweep`."""

from __future__ import annotations

import json
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from unlearn_hf.cli.parsing import COMMAND_LINE, ArgumentsError, Setting, Settings, as_words
from unlearn_hf.cli.run_folder import check_run_folder
from unlearn_hf.cli.sweep.plan import Plan, SweepArguments, first_look
from unlearn_hf.cli.verbs import Verb, unlearn
from unlearn_hf.common.run_record import hide_secrets

if TYPE_CHECKING:
    from unlearn_hf.cli.sweep.study import SharedStudy

_HELD_BACK = 32
_HOPELESS = 3
_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# What says nothing about how a trial comes out.
_FREE = ("output_dir", "reference_cache", "disable_tqdm", "run_name", "report_to", "logging_steps")


ARGUMENTS = (SweepArguments, *unlearn.ARGUMENTS)


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

    from unlearn_hf.cli.sweep.outcome import drop_beaten_weights, options_text, results
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
        print(f"trial {trial.number}: {options_text(trial.user_attrs)}: {line}", flush=True)
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
    return as_words({name: value for name, value in values.items() if name not in settings})


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
