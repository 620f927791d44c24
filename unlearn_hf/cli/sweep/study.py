"""The study that all processes of a sweep share, in a file or a database."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, OperationalError

from unlearn_hf.common.locks import Owner

OBJECTIVES: dict[str, Literal["minimize", "maximize"]] = {"forget_prob": "minimize", "kept": "maximize"}
"""Of the verdict after a trial: probability of answers to forget, and of answers to keep relative to before it."""
FEWEST_TRIALS, FEWEST_LOOKS = 5, 5
"""Ended trials before one may be pruned (Optuna's median pruner has the same), and looks at the trial itself."""
MOST_ATTEMPTS = 3
BEAT, SILENCE = 60, 900
"""Seconds between two signs of life of a trial, and without one after which it is taken for dead."""
_KEY = "unlearn_hf"
_TRIES = 5


def open_storage(where: str) -> BaseStorage:
    """Storage of a study: a database URL, an SQLite file (`.db`, `.sqlite`), or, for any other file, Optuna's journal.

    Raises:
        ValueError: if it cannot be opened, is damaged or of another kind; such a file is left as it is.
    """
    try:
        if "://" in where:
            return _database(where)
        path = Path(where)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".db", ".sqlite", ".sqlite3"):
            _check_database(path)
            return _database(f"sqlite:///{path.resolve()}")
        _check_journal(path)
        return JournalStorage(JournalFileBackend(str(path)))
    except Exception as problem:  # whatever the driver of a database raises
        raise ValueError(f"study: {_shown(where)} cannot be used ({_first_line(problem)}).") from problem


def _database(url: str) -> RDBStorage:
    """A database with Optuna's tables; of processes that begin together one makes them, others see an error."""
    waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None
    for attempt in range(_TRIES):
        try:
            return RDBStorage(url, engine_kwargs=waiting)
        except (IntegrityError, OperationalError):
            if attempt == _TRIES - 1:
                raise
            time.sleep(0.5 * (attempt + 1))
    raise AssertionError


def _check_journal(path: Path) -> None:
    """Refuse a file that is no journal: what Optuna added would make it worse. A last line that a kill cut goes."""
    if not path.exists():
        return
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()  # nobody writes meanwhile
    try:
        with path.open("rb+") as file:
            whole = 0
            for number, line in enumerate(file, start=1):
                if number > 1 and not line.endswith(b"\n"):
                    break
                _check_entry(number, line)
                whole += len(line)
            file.truncate(whole)
    finally:
        lock.release()


def _check_entry(number: int, line: bytes) -> None:
    try:
        sound = line.endswith(b"\n") and "op_code" in json.loads(line)
    except (ValueError, TypeError):
        sound = False
    if not sound:
        raise ValueError(f"line {number} is no entry of a study; name another file, or mend this one")


def _check_database(path: Path) -> None:
    """Refuse a database of something else, to which Optuna would add its tables."""
    if not path.exists():
        return
    with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    if tables and "studies" not in tables:
        raise ValueError(f"it is a database of something else, with the table {tables[0]!r}; name another file")


def _shown(where: str) -> str:
    """The place of a study, without a password."""
    return repr(re.sub(r"://([^:/@]*):[^@]*@", r"://\1:***@", where))


def _first_line(problem: BaseException) -> str:
    return str(problem).strip().partition("\n")[0].rstrip(".") or type(problem).__name__


def _load_or_create(storage: BaseStorage, name: str) -> optuna.Study:
    try:
        return optuna.load_study(study_name=name, storage=storage)  # whatever its directions are
    except KeyError:
        directions = list(OBJECTIVES.values())
        return optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)


class SharedStudy:
    """A study that several processes work on, and that outlives them.

    Args:
        where: see `open_storage`.
        name: of the study there.
        project: what trials have in common (`options`, `data`, `space`), each a mapping of names to texts; a study
            with another project is refused.
        seed: seeds the sampler, with the number of the trial.

    Attributes:
        is_new: whether it had no trial yet.

    Raises:
        ValueError: for a study that cannot be read, or is of another project.
    """

    def __init__(self, where: str, name: str, project: Mapping[str, Mapping[str, str]], seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.seed = seed
        storage = open_storage(where)
        try:
            self.study = _load_or_create(storage, name)
            known = self.study.user_attrs.get(_KEY)
            self.is_new = not self.study.get_trials(deepcopy=False)
        except Exception as problem:
            raise ValueError(
                f"study: {_shown(where)} holds no study that can be read ({_first_line(problem)})."
            ) from problem
        directions = [each.name.lower() for each in self.study.directions]
        if directions != list(OBJECTIVES.values()) or (known is None and not self.is_new):
            raise ValueError(
                f"study: {name!r} in {_shown(where)} was made by another program; give another --study_name."
            )
        if known is None:
            self.study.set_user_attr(_KEY, {key: dict(value) for key, value in project.items()})
            return
        for key, mine in project.items():
            if changes := _differences(known.get(key, {}), mine):
                raise ValueError(
                    f"study: {name!r} in {_shown(where)} is of another project, its {key} differ "
                    f"({', '.join(changes)}); give the same, or another --study_name."
                )

    def trials(self) -> list[FrozenTrial]:
        """All trials by number."""
        return self.study.get_trials(deepcopy=False)

    def claim(self, most: int | None) -> optuna.Trial | None:
        """Begin a trial, one that was given up first; `None` when `most` have begun, in all processes together."""
        self._give_up_dead()
        if most is not None and self._begun() >= most:
            return None
        trial = self.study.ask()
        trial.set_user_attr("process", asdict(Owner.this_process()))
        if most is not None and self._begun(trial.number) >= most:  # another process was faster
            trial.set_user_attr("surplus", True)
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        # By the number, so that processes that begin together do not try the same.
        self.study.sampler = optuna.samplers.TPESampler(seed=self.seed + trial.number)
        return trial

    def _begun(self, before: int | None = None) -> int:
        """Trials that have begun and were not given up, with lower numbers than `before`."""
        trials = self.trials()[:before]
        again = repeated(self.trials())
        return sum(
            trial.state != TrialState.WAITING and trial.number not in again and not trial.user_attrs.get("surplus")
            for trial in trials
        )

    def sign_of_life(self, trial: optuna.Trial) -> None:
        """Say that a trial is alive, for processes on other machines."""
        trial.set_user_attr("alive", time.time())

    def _give_up_dead(self) -> None:
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _is_dead(trial):
                run = Owner.from_record(trial.user_attrs.get("run"))
                if run is not None and run.state == "running":  # it has outlived the process that would judge it
                    os.kill(run.pid, signal.SIGTERM)
                self.give_up(trial.number, trial.params, trial.user_attrs.get("attempt", 1))

    def give_up(self, number: int, params: Mapping[str, Any], attempt: int) -> None:
        """End a trial that was killed, and queue its options for whoever comes next, unless that was tried often."""
        try:
            self.study.tell(number, state=TrialState.FAIL)
        except (ValueError, RuntimeError):  # another process was faster
            return
        if attempt < MOST_ATTEMPTS:
            self.study.enqueue_trial(dict(params), user_attrs={"again": number, "attempt": attempt + 1})

    def same_as(self, trial: optuna.Trial) -> FrozenTrial | None:
        """A finished trial with the same options."""
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return next((each for each in complete if each.params == trial.params), None)

    def is_poor(self, looks: Mapping[str, float]) -> bool:
        """Median pruning by hand, because Optuna's takes one objective only.

        Each look at a running trial gives one number, its trade-off (`stop_rule`). A trial is poor when the best
        trade-off it has had so far is worse than the median of what the others had had by the same step (Golovin et
        al., Google Vizier, KDD 2017, section 3.2.2, with the best value in place of the mean). Pruned trials count,
        too: among complete ones alone the median only rises, until everything is pruned.
        """
        if len(looks) < FEWEST_LOOKS:
            return False
        step = max(map(int, looks))
        others = [
            best
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
            if (best := _best_by(trial.user_attrs.get("looks", {}), step)) is not None
        ]
        best = _best_by(looks, step)
        assert best is not None
        return len(others) >= FEWEST_TRIALS and best < statistics.median(others)


def _best_by(looks: Mapping[str, float], step: int) -> float | None:
    return max((value for at, value in looks.items() if int(at) <= step), default=None)


def _is_dead(trial: FrozenTrial) -> bool:
    owner = Owner.from_record(trial.user_attrs.get("process"))
    if owner is not None and owner.state != "elsewhere":
        return owner.state == "gone"
    began = trial.datetime_start.timestamp() if trial.datetime_start is not None else 0.0
    return time.time() - max(began, trial.user_attrs.get("alive", 0.0)) > SILENCE


def repeated(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """Trials that were given up, with the one that takes their place."""
    return {trial.user_attrs["again"]: trial.number for trial in trials if "again" in trial.user_attrs}


def _differences(theirs: Mapping[str, str], mine: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: {theirs.get(name, 'not given')} there, {mine.get(name, 'not given')} here"
        for name in sorted({*theirs, *mine})
        if theirs.get(name) != mine.get(name)
    ]
