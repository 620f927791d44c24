"""Runs that are killed, interrupted, or begun twice, in real processes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.own_rows import TRAINING
from tests.cli.processes import CommandLine
from unlearn_hf.cli.main import BAD_INPUT, INTERRUPTED
from unlearn_hf.common.locks import LOCK, Owner
from unlearn_hf.common.run_record import read_record
from unlearn_hf.training.checkpoints import checkpoints, damage
from unlearn_hf.training.termination import ending_on_signals

OWN = ["--method", "npo", "--model_name_or_path", "model", "--forget_file", "forget.jsonl", "--retain_file"]

UNJUDGED = ("--final_evaluation", "false")
UNSTOPPED = ("--stop_when", "none")


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Tests in the background of a script are begun with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def running(workplace: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., CommandLine]]:
    """Begins a run that would take many minutes, and waits until it has written a checkpoint."""
    begun = []

    def begin(save_steps: int = 5) -> CommandLine:
        words = [*OWN, "retain.jsonl", "--output_dir", str(run), *TRAINING, "--max_steps", "20000", "--save_steps"]
        process = CommandLine(["unlearn", *words, str(save_steps), *UNSTOPPED], run.with_name("printed"))
        begun.append(process)
        while not any(damage(path) is None for path in checkpoints(run)):
            assert process.is_alive(), process.ended()
            time.sleep(0.05)
        return process

    monkeypatch.chdir(workplace)
    yield begin
    for process in begun:
        process.kill()
        process.join()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.mark.filterwarnings("ignore:checkpoint-")  # it may be killed while it writes one
def test_a_killed_run_is_known_as_such_and_resumed(
    unlearn: Callable[..., int],
    running: Callable[..., CommandLine],
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    process = running()
    assert read_record(run)["status"] == "running"
    before = (run / "run.json").read_bytes()
    for word in ("--resume", "--overwrite", "--bf16"):
        assert unlearn(word) == BAD_INPUT
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith(f"error: output_dir: '{run}' is in use by process {process.pid} on ")
    assert (run / "run.json").read_bytes() == before
    assert process.is_alive()
    process.send(signal.SIGKILL)
    process.join()
    assert json.loads((run / "run.json").read_text())["status"] == "running"
    assert read_record(run)["status"] == "killed"
    assert len(checkpoints(run)) <= 2  # an older one goes when the newer is whole
    reached = max(int(path.name.rpartition("-")[2]) for path in checkpoints(run))
    assert unlearn("--resume", "--max_steps", str(reached + 2), *UNJUDGED, *UNSTOPPED) == 0
    assert read_record(run)["status"] == "finished"
    assert json.loads((run / "trainer_state.json").read_text())["global_step"] == reached + 2
    assert checkpoints(run) == []
    assert not (run / LOCK).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_at_hand_and_says_how_to_go_on(
    unlearn: Callable[..., int], running: Callable[..., CommandLine], run: Path, number: signal.Signals
) -> None:
    process = running(50)
    process.send(number)
    errors = process.ended()
    assert process.exitcode == INTERRUPTED
    (last,) = [path for path in checkpoints(run) if damage(path) is None][-1:]
    assert errors.splitlines()[-1] == f"interrupted; the same command with --resume continues from {last.name}"
    assert ("ending after this step" in errors) == (number == signal.SIGINT)
    assert int(last.name.rpartition("-")[2]) % 50  # none that was due
    assert read_record(run)["status"] == "interrupted"
    assert not (run / LOCK).exists()
    reached = int(last.name.rpartition("-")[2])
    assert unlearn("--resume", "--max_steps", str(reached + 1), *UNJUDGED, *UNSTOPPED) == 0
    assert json.loads((run / "trainer_state.json").read_text())["global_step"] == reached + 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("words", "signals"),
    [(("--save_strategy", "no"), 1), ((), 2)],
    ids=["no checkpoints", "the second signal"],
)
def test_what_ends_at_once(
    unlearn: Callable[..., int],
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    words: tuple[str, ...],
    signals: int,
) -> None:
    def terminate(*_: object, **__: object) -> None:
        for _ in range(signals):
            os.kill(os.getpid(), number)
        raise AssertionError("goes on")

    before = signal.getsignal(number)
    monkeypatch.setattr("unlearn_hf.training.unlearning.UnlearningTrainer.training_step", terminate)
    assert unlearn(*words) == INTERRUPTED
    assert "interrupted; there was no checkpoint yet" in capsys.readouterr().err
    assert read_record(run)["status"] == "interrupted"
    assert signal.getsignal(number) == before


def test_ctrl_c_ends_at_once_with_workers_that_load_data(
    unlearn: Callable[..., int], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal has ended them, so that there may be no data for the step at hand."""

    def interrupt(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("goes on")

    monkeypatch.setattr("unlearn_hf.training.unlearning.UnlearningTrainer.training_step", interrupt)
    assert unlearn("--dataloader_num_workers", "1") == INTERRUPTED


def test_a_handler_of_a_program_around_python_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python knows it as `None`, and takes no `None` to put back."""
    args = SimpleNamespace(save_strategy="steps", world_size=1)
    trainer = SimpleNamespace(args=args, add_callback=lambda _: None, remove_callback=lambda _: None)
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    with ending_on_signals(trainer):
        monkeypatch.undo()
        assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_after_the_last_step_ends_the_run_too(
    unlearn: Callable[..., int], run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def terminate(*_: object, **__: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    monkeypatch.setattr("unlearn_hf.training.unlearning.UnlearningTrainer.evaluate", terminate)
    words = ("--eval_strategy", "epoch", "--verdict", "false", *UNJUDGED, *UNSTOPPED)
    assert unlearn(*words) == INTERRUPTED
    assert "interrupted; the same command with --resume continues from" in capsys.readouterr().err
    assert read_record(run)["status"] == "interrupted"


def test_ctrl_c_before_the_first_checkpoint(
    unlearn: Callable[..., int], run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unlearn_hf.training.unlearning.UnlearningTrainer.training_step", interrupt)
    assert unlearn() == INTERRUPTED
    assert "interrupted; there was no checkpoint yet; the same command with --overwrite" in capsys.readouterr().err
    assert read_record(run)["status"] == "interrupted"


def test_checkpoints_stay_where_they_are_asked_for(unlearn: Callable[..., int], run: Path) -> None:
    assert unlearn("--keep_checkpoints", *UNJUDGED) == 0
    assert [path.name for path in checkpoints(run)] == ["checkpoint-2"]
    assert unlearn("--resume", "--max_steps", "3", *UNJUDGED) == 0
    assert checkpoints(run) == []
    assert unlearn("--resume", "--max_steps", "4", *UNJUDGED) == BAD_INPUT  # says what was not kept


def test_an_evaluation_holds_its_folder(
    unlearn: Callable[..., int], workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "evaluated"
    folder.mkdir()
    init = Owner.this_process()
    parent = Path(f"/proc/{os.getppid()}/stat")
    if not parent.exists():
        pytest.skip("no /proc here")
    began = float(parent.read_text().rpartition(")")[2].split()[19])
    (folder / LOCK).write_text(json.dumps(asdict(Owner(init.host, os.getppid(), began))))
    from unlearn_hf.cli.main import main

    words = ["--model_name_or_path", "model", "--forget_file", "forget.jsonl", "--retain_file", "retain.jsonl"]
    assert main(["evaluate", *words, "--output_dir", str(folder)]) == BAD_INPUT
    assert f"is in use by process {os.getppid()}" in capsys.readouterr().err
    (folder / LOCK).unlink()
    assert main(["evaluate", *words, "--output_dir", str(folder), "--max_new_tokens", "2"]) == 0
    assert not (folder / LOCK).exists()
