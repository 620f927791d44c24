"""`sweep` from begin to end on a stand-in program: trials, failures, the choice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.sweep_words import RATES, outcome
from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.cli.sweep.outcome import Result, choose, drop_beaten_weights, frontier


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
