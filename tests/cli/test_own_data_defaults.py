"""Defaults for rows of one's own: by rules, under what is given, and on record."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny_models import build_model
from unlearn_hf.cli.main import BAD_INPUT
from unlearn_hf.methods import NPOConfig, TaskVectorConfig, WHPConfig
from unlearn_hf.training.row_defaults import STOP_WHEN, row_defaults
from unlearn_hf.training.stop_condition import parse_condition


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("forget", [1, 4, 12, 40, 400])
@pytest.mark.parametrize("retain", [2, 9, 24, 4000])
def test_rules_hold_for_every_size(
    forget: int, retain: int, adapter: bool, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    chosen = row_defaults(forget, retain, adapter, width=576)
    batch = chosen["per_device_train_batch_size"]
    assert 1 <= batch <= 16
    assert retain - chosen["held_back_rows"] >= batch * processes
    steps = chosen["num_train_epochs"] * -(-forget // (batch * processes))
    assert steps >= 100
    parse_condition(chosen["stop_when"])


@pytest.mark.parametrize(("width", "rate"), [(192, 2e-4), (384, 1e-4), (576, 7e-5), (2048, 2e-5), (4096, 1e-5)])
def test_the_rate_falls_with_the_width_and_is_six_times_that_for_an_adapter(width: int, rate: float) -> None:
    assert row_defaults(4, 60, False, width)["learning_rate"] == rate
    assert row_defaults(4, 60, True, width)["learning_rate"] == pytest.approx(6 * rate, rel=0.2)


def test_small_retain_sets_keep_all_their_rows() -> None:
    assert row_defaults(4, 9, False)["held_back_rows"] == 0
    assert row_defaults(4, 24, False)["held_back_rows"] == 8
    assert row_defaults(4, 60, False)["held_back_rows"] == 20
    assert row_defaults(4, 200, False)["held_back_rows"] == 40
    assert row_defaults(4, 4000, False)["held_back_rows"] == 64


def test_what_is_given_wins_and_the_rest_is_on_record(unlearn: Callable[..., int], tmp_path: Path) -> None:
    assert unlearn("--learning_rate", "1e-3", "--verdict_samples", "1") == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    chosen = record["configuration"]
    assert (chosen["learning_rate"], chosen["num_train_epochs"]) == (1e-3, 1)  # given
    assert (chosen["held_back_rows"], chosen["stop_when"]) == (4, STOP_WHEN)
    assert record["stopped"].startswith("step 2: ")


def test_a_typo_in_the_stop_condition_is_one_line(
    unlearn: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert unlearn("--stop_when", "forget_pob < 0.1") == BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "'forget_pob' is not known; did you mean forget_prob" in error
    assert not (tmp_path / "run" / "run.json").exists()


def test_rows_never_seen_are_compared_with(
    unlearn: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert unlearn("--holdout_file", "forget.jsonl") == BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(r"holdout_file: forget.jsonl: (\d+) of \1 holdout rows are to be forgotten too", error)
    assert unlearn("--holdout_file", "retain.jsonl", "--verdict_samples", "1") == 0
    verdict = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert verdict["rows"]["holdout"] == 12
    assert "holdout_prob" in verdict["after"]


def test_python_gets_the_same_and_what_is_given_wins(tmp_path: Path) -> None:
    forget, retain = [{}] * 4, [{}] * 24
    made = NPOConfig.for_rows(build_model(), forget, retain, output_dir=str(tmp_path), learning_rate=1e-3)
    expected = row_defaults(4, 24, False, build_model().config.hidden_size) | {"learning_rate": 1e-3}
    assert {name: getattr(made, name) for name in expected} == expected
    adapter = NPOConfig.for_rows(build_model(), forget, retain, adapter=True, output_dir=str(tmp_path))
    assert adapter.learning_rate == row_defaults(4, 24, True, build_model().config.hidden_size)["learning_rate"]


def test_nothing_stops_without_a_condition(tmp_path: Path) -> None:
    made = NPOConfig.for_rows(build_model(), [{}] * 4, [{}] * 24, output_dir=str(tmp_path), stop_when=None)
    assert (made.stop_when, made.stop_on_path) == (None, False)
    vector = TaskVectorConfig.for_rows(build_model(), [{}] * 4, [{}] * 24, output_dir=str(tmp_path))
    assert (vector.stop_when, vector.stop_on_path) == (None, False)
    alone = TaskVectorConfig.for_rows(build_model(), [{}] * 4, None, output_dir=str(tmp_path))
    assert alone.held_back_rows == 0


def test_nothing_is_chosen_for_training_where_there_is_none(tmp_path: Path) -> None:
    build_model().save_pretrained(tmp_path / "reinforced")
    for retain, held in ((24, 8), (12, 4), (10, 3)):
        options = {"output_dir": str(tmp_path), "reinforced_model": str(tmp_path / "reinforced")}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = WHPConfig.for_rows(build_model(), [{}] * 4, [{}] * retain, **options)
        assert made.held_back_rows == held
        made.check_fills_batch(retain)  # there is none to fill
    assert WHPConfig.for_rows(build_model(), [{}] * 4, [{}] * 24, output_dir=str(tmp_path)).warmup_steps == 5


def test_a_file_says_that_nothing_stops(unlearn: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "unstopped.yaml").write_text("stop_when: null\n")
    assert unlearn("--config", str(tmp_path / "unstopped.yaml"), "--verdict", "false") == 0
    configuration = json.loads((tmp_path / "run" / "run.json").read_text())["configuration"]
    assert (configuration["stop_when"], configuration["stop_on_path"]) == (None, False)


def test_it_is_told_in_one_line(unlearn: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert unlearn("--verdict", "false", "--stop_when", "none") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Chosen for")]
    assert line.startswith("Chosen for 8 rows to forget (docs/defaults.md): ")
    assert "held_back_rows 4" in line
    assert "stop" not in line
