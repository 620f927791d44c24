"""`sweep`: a study that workers share, killed trials, and trials that are ended early."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.cli.processes import CommandLine
from tests.cli.sweep_words import outcome
from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.cli.sweep.study import FEWEST_TRIALS, SharedStudy

PROJECT = {"options": {"method": "npo"}, "data": {"forget": "1"}, "space": {"epsilon": "0,1"}}


def test_a_trial_that_was_killed_is_repeated(
    words: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_PROGRAM", "die")
    monkeypatch.setenv("SWEEP_PROGRAM_ONCE", str(tmp_path / "once"))
    assert main(words(trials="2")) == 0
    found = outcome(tmp_path)
    assert found["others"] == ["trial 0 failed: killed by SIGKILL; trial 1 repeats it"]
    assert [each["number"] for each in found["trials"]] == [1, 2]
    options = [json.loads((tmp_path / "sweep" / f"trial-000{n}" / "options.json").read_text()) for n in (0, 1)]
    assert len({each[each.index("--learning_rate") + 1] for each in options}) == 1


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path: Path, word: str = "") -> str:
    """The text of a file, once it is there and has `word`."""
    for _ in range(600):
        if path.is_file() and (text := path.read_text()) and word in text:
            return text
        time.sleep(0.1)
    raise AssertionError(f"{path} did not come")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_sweep_that_was_killed_goes_on(
    number: signal.Signals,
    words: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    once = tmp_path / "once"
    monkeypatch.setenv("SWEEP_PROGRAM", "wait")
    monkeypatch.setenv("SWEEP_PROGRAM_ONCE", str(once))
    worker = CommandLine(words(trials="2"), tmp_path / "printed")
    trial = int(wait_for(once))
    wait_for(tmp_path / "sweep" / "study.log", "alive")  # Optuna's lock gives an interruption another name
    worker.send(number)
    worker.join()
    assert main(words(trials="2")) == 0
    found = outcome(tmp_path)
    how = "its process was killed" if number == signal.SIGKILL else "interrupted (KeyboardInterrupt)"
    assert found["others"] == [f"trial 0 failed: {how}; trial 1 repeats it"]
    assert len(found["trials"]) == 2
    assert not Path(f"/proc/{trial}").exists() or "Z" in Path(f"/proc/{trial}/stat").read_text()


@pytest.mark.parametrize("kind", ["study.log", "study.db"])
def test_two_workers_share_a_study(kind: str, words: Callable[..., list[str]], tmp_path: Path) -> None:
    given = words(trials="7", study=str(tmp_path / kind), prune="false")  # or a trial that lags behind may be pruned
    workers = [CommandLine(given, tmp_path / f"printed-{number}") for number in (1, 2)]
    printed = [worker.ended() for worker in workers]
    assert [worker.exitcode for worker in workers] == [0, 0], printed
    assert main(given) == 0
    found = outcome(tmp_path)
    assert len(found["trials"]) == 7
    assert found["others"] == []
    assert len({each["options"]["learning_rate"] for each in found["trials"]}) == 7
    assert sum(text.count(": begins") for text in printed) == 7


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_poor_trials_are_pruned(
    handler: Any, words: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where SIGINT is ignored, as in the background of a script: trials are ended by it."""
    monkeypatch.setenv("SWEEP_PROGRAM", "poor")
    rates = ["1e-4", "2e-4", "3e-4", "4e-4", "5e-4"]
    assert len(rates) == FEWEST_TRIALS
    before = signal.signal(signal.SIGINT, handler)
    try:
        for number, rate in enumerate([*rates, "1e-5"], start=1):
            study = SharedStudy(str(tmp_path / "sweep" / "study.log"), "sweep", {}, seed=0) if number > 1 else None
            if study is not None:
                study.study.enqueue_trial({"learning_rate": rate})
            assert main(words(trials=str(number), space=f"learning_rate={','.join(['1e-5', *rates])}")) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert outcome(tmp_path)["others"] == ["trial 5 was pruned at step 25: learning_rate=1e-5"]
    assert (tmp_path / "sweep" / "trial-0005" / "interrupted").exists()


def test_a_cut_line_of_a_journal_is_mended(words: Callable[..., list[str]], tmp_path: Path) -> None:
    assert main(words(trials="1")) == 0
    with (tmp_path / "sweep" / "study.log").open("ab") as file:
        file.write(b'{"op_code":8,"work')
    assert main(words(trials="2")) == 0
    assert len(outcome(tmp_path)["trials"]) == 2


def looked(*values: float) -> dict[str, float]:
    return {str(5 * number): value for number, value in enumerate(values, start=1)}


def test_the_median_rule(tmp_path: Path) -> None:
    shared = SharedStudy(str(tmp_path / "s.log"), "s", PROJECT, seed=0)

    def ends(looks: dict[str, float], pruned: bool = False) -> None:
        trial = shared.claim(None)
        assert trial is not None
        trial.set_user_attr("looks", looks)
        if pruned:
            shared.study.tell(trial, state=TrialState.PRUNED)
        else:
            shared.study.tell(trial, [0.5, 1.0])

    for best in (0.1, 0.2, 0.3, 0.4, 0.5):
        assert not shared.is_poor(looked(0, 0, 0, 0, 0))  # too few to compare with
        ends(looked(best, 0, 0, 0, 0, 1.0))
    assert shared.is_poor(looked(0, 0.29, 0, 0, 0.1))
    assert not shared.is_poor(looked(0, 0.31, 0, 0, 0.1))
    assert not shared.is_poor(looked(0, 0, 0, 0))  # too early
    assert shared.is_poor(looked(0, 0.29, 0, 0, 0, 0.9))  # by then the others had 1.0
    for best in (0.11, 0.12):  # those that were pruned lower the median, or it could only rise
        ends(looked(0, best, 0, 0, 0), pruned=True)
    assert not shared.is_poor(looked(0, 0.21, 0, 0, 0.1))
    assert shared.is_poor(looked(0, 0.19, 0, 0, 0.1))


def test_the_script_for_slurm_starts_workers_on_one_study(words: Callable[..., list[str]], tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "sweep_slurm.sh"
    given = [str(script), *words(trials="4")[1:]]
    environment = {"PYTHON": sys.executable, "PYTHONPATH": str(script.parents[1])}
    workers = [start(given, SLURM_ARRAY_TASK_ID=str(task), **environment) for task in (1, 2)]
    printed = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], printed
    assert len(outcome(tmp_path)["trials"]) == 4
    assert sum(text.count(": begins") for text in printed) == 4
    bare = start([str(script)])
    assert "error: no options" in bare.communicate()[0]
    assert bare.returncode == BAD_INPUT
    if shutil.which("shellcheck") is not None:
        subprocess.run(["shellcheck", str(script)], check=True)
