"""`sweep`: space, a shared study, killed and failed trials, the choice (long: all on one stand-in program)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.cli.own_rows import write_rows
from tests.cli.processes import CommandLine
from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.cli.parsing import ArgumentsError
from unlearn_hf.cli.sweep.outcome import Result, choose, drop_beaten_weights, frontier
from unlearn_hf.cli.sweep.space import parse_space
from unlearn_hf.cli.sweep.study import FEWEST_TRIALS, SharedStudy
from unlearn_hf.cli.verbs import sweep

PROGRAM = Path(__file__).parent / "sweep_program.py"
RATES = "learning_rate=1e-5:1e-3:log"
PROJECT = {"options": {"method": "npo"}, "data": {"forget": "1"}, "space": {"epsilon": "0,1"}}


@pytest.fixture
def words(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Words of a sweep over a learning rate, with a stand-in for `unlearn`; a keyword replaces an option."""
    monkeypatch.chdir(workplace)

    def made(*more: str, **replaced: str | None) -> list[str]:
        options: dict[str, str | None] = {
            "method": "npo",
            "model_name_or_path": "model",
            "forget_file": "forget.jsonl",
            "retain_file": "retain.jsonl",
            "output_dir": str(tmp_path / "sweep"),
            "space": RATES,
            "trials": "4",
            "launcher": shlex.join([sys.executable, str(PROGRAM)]),
            **replaced,
        }
        given = [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]
        return ["sweep", *given, *more]

    return made


def outcome(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "sweep" / "sweep.json").read_text())


def test_a_space_in_words() -> None:
    space = {
        each.name: each for each in parse_space([RATES, "epsilon=0,0.02", "num_train_epochs=1:5:int", "method=a,b"])
    }
    assert next(iter(space)) == "method"  # it decides which of the others there are
    assert space["epsilon"].choices == ("0", "0.02")
    assert (space["learning_rate"].low, space["learning_rate"].high) == (1e-5, 1e-3)
    assert space["num_train_epochs"].samples == ("1", "5")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("learning_rate", "is not NAME=VALUES"),
        ("learning_rate=1e-5", "learning_rate has one value; give it as --learning_rate 1e-5."),
        ("learning_rate=1:1", "has one value"),
        ("learning_rate=1e-3:1e-5", "1e-3 is above 1e-5"),
        ("learning_rate=0:1e-3:log", "begins above zero, not at 0"),
        ("learning_rate=1e-5:1e-3:lin", "ends with 'lin'"),
        ("learning_rate=low:high", "are numbers"),
        ("learning_rate=1:inf", "finite"),
        ("num_train_epochs=1.5:5:int", "are whole"),
        ("epsilon=0,,1", "a value is empty"),
        ("epsilon=0,0", "a value is there twice"),
    ],
)
def test_a_space_that_is_none(word: str, message: str) -> None:
    with pytest.raises(ArgumentsError) as found:
        parse_space([word])
    assert len(found.value.problems) == 1
    assert message in str(found.value)


def _damaged_journal(folder: Path) -> str:
    (folder / "s.log").write_text("my notes\nof today\n")
    return str(folder / "s.log")


def _damaged_database(folder: Path) -> str:
    (folder / "s.db").write_text("no database, whatever its name is" * 100)
    return str(folder / "s.db")


def _other_database(folder: Path) -> str:
    with sqlite3.connect(folder / "o.db") as connection:
        connection.execute("CREATE TABLE invoices (id INTEGER)")
    return str(folder / "o.db")


def _other_program(folder: Path) -> str:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = optuna.create_study(storage=JournalStorage(JournalFileBackend(str(folder / "x.log"))), study_name="sweep")
    study.enqueue_trial({"x": 1})
    return str(folder / "x.log")


def _under_a_file(folder: Path) -> str:
    (folder / "file").touch()
    return str(folder / "file" / "s.log")


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"space": "learning_rat=1e-5:1e-3"}, "space: learning_rat: unknown; did you mean learning_rate?"),
        ({"space": "epsilon=0,1"}, "method npo has no such option"),
        ({"space": "per_device_train_batch_size=4:16"}, "end the range with :int"),
        ({"space": "beta=0.1,much"}, "space: beta: 'much' is not a number"),
        ({"space": "verdict_rows=4,8"}, "it decides what trials are measured on"),
        ({"space": None}, "space: missing"),
        ({"learning_rate": "1e-5"}, "is given as --learning_rate, too"),
        ({"trials": "0"}, "trials: 0 is no whole number above zero"),
        ({"hours": "-1"}, "hours: -1.0 is not positive"),
        ({"verdict": "false"}, "verdict: false leaves nothing to choose by"),
        ({"resume": "true"}, "a sweep goes on by itself"),
        ({"forget_file": "none.jsonl"}, "none.jsonl' is not there"),
        ({"model_name_or_path": "/no/such"}, "'/no/such' is not there"),
        ({"study": _damaged_journal}, "line 1 is no entry of a study"),
        ({"study": _damaged_database}, "file is not a database"),
        ({"study": _other_database}, "it is a database of something else, with the table 'invoices'"),
        ({"study": _other_program}, "was made by another program"),
        ({"study": _under_a_file}, "cannot be used"),
        ({"study": "nosuch://me:password@host/study"}, "'nosuch://me:***@host/study' cannot be used"),
        ({"study": str}, "cannot be used"),  # a folder
    ],
)
def test_bad_input_is_told_in_a_line_and_nothing_is_lost(
    replaced: dict[str, Any],
    message: str,
    words: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    replaced = {name: value(place) if callable(value) else value for name, value in replaced.items()}
    before = {path: path.read_bytes() for path in place.iterdir() if path.is_file()}
    assert main(words(**replaced)) == BAD_INPUT
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert len(printed.strip().splitlines()) == 1, printed
    assert message in printed
    assert {path: path.read_bytes() for path in place.iterdir() if path.is_file()} == before
    assert not list(tmp_path.glob("sweep/trial*"))


def test_without_optuna(
    words: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ArgumentsError, match=r"sweep needs optuna; install it with `pip install 'unlearn-hf\[sweep\]'`"
    ):
        sweep.first_look(words()[1:])


def test_a_sweep_from_begin_to_end(
    words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words("--trials", "6")) == 0
    printed = capsys.readouterr().out
    found = outcome(tmp_path)
    assert len(found["trials"]) == 6
    eligible = [each for each in found["trials"] if each["kept"] >= 0.95]
    best = min(eligible, key=lambda each: (each["leaking"], each["forget_prob"]))
    assert found["best"]["number"] == best["number"]
    assert f"choice: trial {best['number']}," in printed
    assert found["best"]["command"] in printed
    assert f"--learning_rate {best['options']['learning_rate']}" in found["best"]["command"]
    given = json.loads((tmp_path / "sweep" / f"trial-{best['number']:04d}" / "options.json").read_text())
    assert given[given.index("--save_strategy") + 1] == "no"
    assert (tmp_path / "sweep" / "frontier.png").is_file()
    # all lie on the frontier here: less forgetting keeps more
    assert len(found["frontier"]) == 6

    assert main(words("--trials", "6")) == 0  # the budget is spent
    assert "begins" not in capsys.readouterr().out
    assert main(words("--trials", "7")) == 0
    assert capsys.readouterr().out.count("begins") == 1


def test_a_budget_in_hours_that_is_spent(words: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(trials=None, hours="1e-12")) == 1
    assert capsys.readouterr().out.strip() == "no trial was measured"


def test_a_space_in_a_file(words: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(f"space: [{RATES}, 'beta=0.1,0.2']\nlearning_rate: 1e-5\nwarmup_steps: 2\n")
    assert main(words("--config", str(tmp_path / "sweep.yaml"), space=None, trials="1")) == 0
    found = outcome(tmp_path)
    assert set(found["trials"][0]["options"]) == {"learning_rate", "beta"}
    given = json.loads((tmp_path / "sweep" / "trial-0000" / "options.json").read_text())
    assert given.count("--learning_rate") == 1  # the search takes the place of the file's value
    assert given[given.index("--warmup_steps") + 1] == "2"


def test_the_same_options_are_measured_once(words: Callable[..., list[str]], tmp_path: Path) -> None:
    assert main(words(space="learning_rate=1e-4,2e-4", trials="5")) == 0
    assert len(outcome(tmp_path)["trials"]) == 5
    assert len(list((tmp_path / "sweep").glob("trial-*.log"))) == 2


def test_options_that_a_method_lacks_are_left_out(words: Callable[..., list[str]], tmp_path: Path) -> None:
    assert main(words("--space", "method=npo,eupmu", "epsilon=0,0.1", RATES, method=None, trials="8")) == 0
    options = [each["options"] for each in outcome(tmp_path)["trials"]]
    assert {each["method"] for each in options} == {"npo", "eupmu"}
    assert all(("epsilon" in each) == (each["method"] == "eupmu") for each in options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": "learning_rate=1e-5:1e-2:log"}, "its space differ (learning_rate: 1e-5:1e-3:log there"),
        ({"beta": "0.5"}, "its options differ (beta: not given there, 0.5 here)"),
        ({"model_name_or_path": "adapter"}, "its options differ (model_name_or_path: model there, adapter here)"),
    ],
)
def test_a_study_of_another_project(
    change: dict[str, str],
    message: str,
    words: Callable[..., list[str]],
    tmp_path: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words(trials="1")) == 0
    content = (tmp_path / "sweep" / "study.log").read_bytes()
    monkeypatch.setattr("unlearn_hf.cli.training.check_models", lambda *given: [])  # `adapter` holds no adapter
    assert main(words(trials="2", **change)) == BAD_INPUT
    assert message in capsys.readouterr().err
    assert (tmp_path / "sweep" / "study.log").read_bytes() == content


def test_other_rows_under_the_same_name(
    words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": f"Who is {i}?", "answer": f"Ada {i}."} for i in range(4)]
    write_rows(tmp_path / "mine.jsonl", rows)
    mine = {"forget_file": str(tmp_path / "mine.jsonl"), "trials": "1"}
    assert main(words(**mine)) == 0
    write_rows(tmp_path / "mine.jsonl", rows[:3])
    assert main(words(**mine)) == BAD_INPUT
    assert "its data differ (forget: 4 rows" in capsys.readouterr().err


def test_failed_trials_are_told_with_their_last_line(
    words: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SWEEP_PROGRAM", "fail")
    assert main(words(trials="8")) == 0
    found, printed = outcome(tmp_path), capsys.readouterr().out
    assert 0 < len(found["trials"]) < 8
    assert len(found["trials"]) + len(found["others"]) == 8
    assert all(line.endswith("failed: the rows are gone") for line in found["others"])
    assert found["others"][0] in printed


@pytest.mark.parametrize(("how", "reason"), [("fail", "the rows are gone"), ("nan", "its verdict is not finite")])
def test_it_ends_when_the_first_trials_all_fail(
    how: str,
    reason: str,
    words: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SWEEP_PROGRAM", how)
    assert main(words(space="learning_rate=1e-3:2e-3")) == BAD_INPUT
    assert f"the first 3 trials failed, the last one with: failed: {reason}" in capsys.readouterr().err


def test_a_model_that_did_not_know_the_rows(
    words: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SWEEP_PROGRAM", "unknown")
    assert main(words(trials="1")) == 0
    assert "no choice: the model did not know these rows" in capsys.readouterr().out
    assert outcome(tmp_path)["best"] is None


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


def result(number: int, forget_prob: float, kept: float, leaking: int = 0, knew: bool = True) -> Result:
    return Result(number, {}, leaking, 10, forget_prob, kept, True, knew, f"trial-{number}", 1.0)


def test_the_rule() -> None:
    kept_too_little = result(0, 0.001, 0.94)
    leaks_one = result(1, 0.01, 0.99, leaking=1)
    none_leaks = result(2, 0.05, 0.96)
    less_likely = result(3, 0.04, 0.951)
    assert choose([kept_too_little, leaks_one, none_leaks, less_likely]) is less_likely
    assert choose([kept_too_little, leaks_one]) is leaks_one
    assert choose([kept_too_little]) is None
    assert choose([result(0, 0.1, 1.0, knew=False)]) is None
    assert frontier([kept_too_little, leaks_one, none_leaks, less_likely]) == [kept_too_little, leaks_one]
    assert frontier([none_leaks, result(4, 0.05, 0.96)]) == [none_leaks]


def test_weights_of_beaten_trials_go(tmp_path: Path) -> None:
    found = []
    for number, (forget_prob, kept) in enumerate([(0.1, 0.99), (0.2, 0.98), (0.01, 0.9)]):
        folder = tmp_path / f"trial-{number}"
        folder.mkdir()
        (folder / "model.safetensors").touch()
        (folder / "verdict.json").touch()
        found.append(replace(result(number, forget_prob, kept), folder=str(folder)))
    drop_beaten_weights(found)
    assert [(Path(each.folder) / "model.safetensors").exists() for each in found] == [True, False, True]
    assert all((Path(each.folder) / "verdict.json").exists() for each in found)


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


@pytest.mark.slow
def test_trials_are_runs_of_unlearn(
    words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--max_steps", "2", "--per_device_train_batch_size", "2", "--use_cpu", "--verdict_samples", "1"]
    assert main(words(*more, trials="2", launcher=None)) == 0
    found = outcome(tmp_path)
    assert len(found["trials"]) == 2
    assert found["best"] is None  # a random model knows nothing
    assert (tmp_path / "sweep" / "report" / "report.html").is_file()
    verdict = json.loads((tmp_path / "sweep" / "trial-0000" / "verdict.json").read_text())
    assert found["trials"][0]["kept"] == verdict["kept_share"]["mean"]
    assert found["trials"][0]["held_back"] is True


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
