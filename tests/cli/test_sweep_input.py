"""`sweep`: the space in words, bad input, and studies that are something else's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.own_rows import write_rows
from tests.cli.sweep_words import RATES
from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.cli.parsing import ArgumentsError
from unlearn_hf.cli.sweep.space import parse_space
from unlearn_hf.cli.verbs import sweep


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
