"""One trial: a run of `unlearn` in a process of its own, followed while it runs."""

from __future__ import annotations

import math
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from unlearn_hf.cli import option_names
from unlearn_hf.cli.parsing import as_words
from unlearn_hf.cli.sweep.space import Dimension
from unlearn_hf.cli.sweep.study import BEAT, SharedStudy
from unlearn_hf.common.files import read_json
from unlearn_hf.common.locks import Owner
from unlearn_hf.common.run_record import read_record
from unlearn_hf.evaluation.verdict import VERDICT_FILE
from unlearn_hf.training.stop_looks import read_looks

_POLL = 0.5
_PATIENCE = 60
_FINISHED = (0, 3)  # 3: not everything was forgotten


def trial_options(space: Sequence[Dimension], trial: optuna.Trial, method: str | None) -> dict[str, str]:
    """The options of a trial as words; those that its method does not have are left out."""
    options: dict[str, str] = {}
    for dimension in space:
        of_others = option_names.method_fields(besides=options.get("method", method))
        if dimension.name not in of_others:
            options[dimension.name] = dimension.suggest(trial)
    return options


@dataclass
class TrialRunner:
    """Runs trials one after the other, and tells the study how each went.

    Args:
        shared: the study.
        folder: where run folders go.
        words: what all trials share, as words of the command line.
        space: what is searched.
        method: the method, unless it is searched.
        prune: whether poor trials are ended early.
        launcher: what runs a trial in place of this Python.
    """

    shared: SharedStudy
    folder: Path
    words: Sequence[str]
    space: Sequence[Dimension]
    method: str | None = None
    prune: bool = True
    launcher: str | None = None
    _beat: float = field(default=0.0, init=False)

    def run(self, trial: optuna.Trial) -> str:
        """Run a trial that was claimed; returns how it went, in a line.

        When this process is interrupted, the trial is given back, for whoever goes on.
        """
        try:
            options = trial_options(self.space, trial, self.method)
            trial.set_user_attr("options", options)
            same = self.shared.same_as(trial)
            if same is not None:
                for name in ("verdict", "looks", "folder", "seconds"):
                    trial.set_user_attr(name, same.user_attrs.get(name))
                trial.set_user_attr("same_as", same.number)
                self.shared.study.tell(trial, same.values)
                return f"has the options of trial {same.number}"
            return self._run(trial, options)
        except BaseException as problem:
            with suppress(ValueError, RuntimeError):  # it may have ended already
                trial.set_user_attr("problem", f"interrupted ({type(problem).__name__})")
            self.shared.give_up(trial.number, trial.params, trial.user_attrs.get("attempt", 1) - 1)
            raise

    def _run(self, trial: optuna.Trial, options: Mapping[str, str]) -> str:
        folder = self.folder / f"trial-{trial.number:04d}"
        log = folder.with_suffix(".log")
        trial.set_user_attr("folder", str(folder))
        start = time.monotonic()
        program = shlex.split(self.launcher) if self.launcher else [sys.executable, "-m", "unlearn_hf"]
        command = [*program, "unlearn", *self.words, *as_words(options), "--output_dir", str(folder)]
        with log.open("wb") as out:
            # In a session of its own, so that Ctrl-C comes to it once, from here.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                if (owner := Owner.of(process.pid)) is not None:
                    trial.set_user_attr("run", asdict(owner))
                pruned_at = self._follow(trial, process, folder)
            finally:
                _end(process)
        trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
        if pruned_at is not None:
            self._tell(trial, state=TrialState.PRUNED)
            return f"pruned at step {pruned_at}, its trade-off is below the median"
        if process.returncode < 0:
            problem = f"killed by {signal.Signals(-process.returncode).name}"
            trial.set_user_attr("problem", problem)
            self.shared.give_up(trial.number, trial.params, trial.user_attrs.get("attempt", 1))
            return problem
        try:
            verdict = self._verdict(folder, log, process.returncode)
        except ValueError as problem:
            trial.set_user_attr("problem", str(problem))
            self._tell(trial, state=TrialState.FAIL)
            return f"failed: {problem}"
        trial.set_user_attr("verdict", verdict)
        self._tell(trial, values=[verdict["forget_prob"], verdict["kept"]])
        return (
            f"{verdict['leaking']} of {verdict['known']} rows leak, forget Prob {verdict['forget_prob']:.3g}, "
            f"kept {verdict['kept']:.3f}"
        )

    def _tell(self, trial: optuna.Trial, values: Any = None, state: TrialState = TrialState.COMPLETE) -> None:
        """Tell the study how a trial ended, unless another process took it for dead and gave it up."""
        with suppress(ValueError, RuntimeError):
            self.shared.study.tell(trial, values, state=state)

    def _follow(self, trial: optuna.Trial, process: subprocess.Popen[bytes], folder: Path) -> int | None:
        """Wait for the end of a run, and end it where it is poor; returns the step at which that was."""
        seen: dict[str, float] = {}
        while process.poll() is None:
            if time.monotonic() - self._beat > BEAT:
                self._beat = time.monotonic()
                self.shared.sign_of_life(trial)
            looks = read_looks(folder)
            if looks != seen:
                seen = looks
                trial.set_user_attr("looks", looks)
                if self.prune and self.shared.is_poor(looks):
                    _end(process)
                    return max(map(int, looks))
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL)
        if (looks := read_looks(folder)) != seen:
            trial.set_user_attr("looks", looks)
        return None

    def _verdict(self, folder: Path, log: Path, status: int) -> dict[str, Any]:
        """What the study needs of a run's verdict.

        Raises:
            ValueError: with the reason why there is none.
        """
        divergence = read_record(folder).get("divergence") if folder.is_dir() else None
        if divergence:
            raise ValueError(str(divergence))
        if status not in _FINISHED:
            raise ValueError(last_line(log) or f"it ended with status {status}")
        verdict = read_json(folder / VERDICT_FILE)
        share = verdict.get("kept_share")
        if share is None:
            raise ValueError("its verdict measured no rows to keep")
        if not math.isfinite(verdict["after"]["forget_prob"] + share["mean"]):
            raise ValueError("its verdict is not finite")  # which Optuna would not take, and the trial would never end
        return {
            "forget_prob": verdict["after"]["forget_prob"],
            "kept": share["mean"],
            "leaking": len(verdict["leaking_rows"]),
            "known": verdict["rows"]["known_before"],
            "known_before": verdict["known_before"],
            "held_back": verdict["rows"]["held_back"],
        }


def last_line(log: Path) -> str:
    """The last line of a log that says something: the error of a run that failed."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "").removeprefix("error: ")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a run that goes on: it may write its record, and is killed if that takes long."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
