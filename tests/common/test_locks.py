"""A folder has one owner at a time, and one that was killed is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from unlearn_hf.common.locks import LOCK, Owner, check_free, held_folder, hold_folder, release_folder, status_now

HOLD = """
import sys, pathlib
from unlearn_hf.common.locks import hold_folder
try:
    hold_folder(pathlib.Path(sys.argv[1]))
except ValueError as problem:
    print(problem)
    sys.exit(2)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    with other_process(tmp_path) as process:
        assert first_line(process) == "held"
        for refused in (check_free, hold_folder):
            with pytest.raises(ValueError, match=rf"output_dir: '.*' is in use by process {process.pid} on .*; wait"):
                refused(tmp_path)
        assert status_now(_record(tmp_path)) == "running"
        process.kill()
        process.wait()
        check_free(tmp_path)
        assert status_now(_record(tmp_path)) == "killed"
    with held_folder(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_nobody_has_waited_for_is_gone(tmp_path: Path) -> None:
    with other_process(tmp_path) as process:
        assert first_line(process) == "held"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table of processes
        check_free(tmp_path)


def test_a_process_that_ends_lets_go(tmp_path: Path) -> None:
    with other_process(tmp_path) as process:
        assert first_line(process) == "held"
        process.communicate("")
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_begin_at_once_one_wins(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({"host": Owner.this_process().host, "pid": 1, "began": -1.0}))  # stale
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    try:
        lines = [first_line(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert lines.count("held") == 1
    assert sum("is in use by" in line for line in lines) == 5


def test_another_machine_is_named_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "pid": 7, "began": 1.0}))
    with pytest.raises(ValueError, match=r"process 7 on elsewhere, which cannot be looked at.*delete '.*\.lock'"):
        hold_folder(tmp_path)
    record = {"status": "running", "process": {"host": "elsewhere", "pid": 7, "began": 1.0}}
    assert status_now(record) == "running"  # as far as can be told


def test_a_number_that_was_given_again_is_another_process(tmp_path: Path) -> None:
    this = Owner.this_process()
    (tmp_path / LOCK).write_text(json.dumps({"host": this.host, "pid": this.pid, "began": this.began - 1}))
    assert hold_folder(tmp_path)
    assert not hold_folder(tmp_path)  # again, by the same process
    release_folder(tmp_path)


@pytest.mark.parametrize("content", ["", '{"host": "a', "{}", "[]"])
def test_a_lock_that_was_cut_is_stale(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_text(content)
    with held_folder(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("status", ["finished", "failed", None])
def test_only_a_run_that_says_it_runs_can_have_been_killed(status: str | None) -> None:
    assert status_now({"status": status, "process": {"host": "h", "pid": 1, "began": 0}}) == status


def _record(folder: Path) -> dict[str, object]:
    return {"status": "running", "process": json.loads((folder / LOCK).read_text())}


def test_folders_that_were_made_for_nothing_go(tmp_path: Path) -> None:
    with held_folder(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).is_file()
    assert list(tmp_path.iterdir()) == []
    with held_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "file").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
