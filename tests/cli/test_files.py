"""No verb loses a file of the user: what is refused, what is replaced, and what is set aside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from unlearn_hf.cli.checks import check_output_file, lies_in
from unlearn_hf.cli.main import BAD_INPUT, main

METRICS = {"forget_truth_ratio": 0.25, "forget_prob": 0.5}


def flat(spaces: int) -> str:
    return json.dumps(METRICS, indent=spaces) + "\n"


@pytest.fixture
def place(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with the tiny model, rows, and logs, and the working directory."""
    shutil.copytree(workplace, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    Path("out").mkdir()
    for name in ("forget", "retain"):
        shutil.copy(f"{name}.jsonl", "out")
    shutil.copytree("model", "out/model")
    for name in ("log", "reference", "out/reference"):
        Path(f"{name}.json").write_text(flat(1))
    Path("precious.json").write_text('{"a": 1}\n')
    Path("link.json").symlink_to("log.json")
    return tmp_path / "place"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


REFUSED = {
    "any file": (["--output_file", "precious.json"], "--overwrite replaces it"),
    "a log": (["--output_file", "log.json"], "is the file that from_log names"),
    "a log, told": (["--output_file", "./log.json", "--overwrite"], "is the file that from_log names"),
    "a log by a link": (["--output_file", "link.json", "--overwrite"], "is the file that from_log names"),
    "a reference": (
        ["--output_file", "reference.json", "--retain_results", "reference.json", "--overwrite"],
        "is the file that retain_results names",
    ),
    "a folder": (["--output_file", "out", "--overwrite"], "is a folder; name a file"),
    "under a file": (["--output_file", "precious.json/a/b.json"], "'precious.json' is a file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_output_of_a_log_replaces_nothing(case: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = REFUSED[case]
    before = content(place)
    assert main(["evaluate", "--from_log", "log.json", *words]) == BAD_INPUT
    told = capsys.readouterr().err
    assert "output_file: " in told
    assert message in told.replace(str(place) + "/", "")
    assert content(place) == before


def test_output_of_a_log_replaces_its_like(place: Path) -> None:
    words = ["evaluate", "--from_log", "log.json", "--output_file"]
    for _ in range(2):
        assert main([*words, "deep/out.json"]) == 0
        assert json.loads(Path("deep/out.json").read_text()) == METRICS
    Path("empty.json").touch()
    assert main([*words, "empty.json"]) == 0
    assert main([*words, "precious.json", "--overwrite"]) == 0
    assert json.loads(Path("precious.json").read_text()) == METRICS


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (flat(1), False),
        (flat(2), False),
        ("", False),
        (flat(4), True),  # as open-unlearning writes its summaries
        ('{\n "a": 1\n}\n', True),
        ('{\n "forget_prob": true\n}\n', True),
        ('{\n "forget_prob": "x"\n}\n', True),
        ("[1]", True),
        ("{", True),
    ],
)
def test_what_may_be_replaced(text: str, refused: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert bool(check_output_file(str(path), False, {})) == refused
    assert not check_output_file(str(path), True, {})
    # in a folder that is read, nothing else is ever replaced
    assert bool(check_output_file(str(path), True, {"from_log": str(tmp_path)})) == refused


def test_lies_in(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b")
    (tmp_path / "other").symlink_to(tmp_path / "a")
    assert lies_in(tmp_path / "a", tmp_path / "a")
    assert lies_in(tmp_path / "a" / "link", tmp_path / "a")
    assert lies_in(tmp_path / "a" / "link", tmp_path / "b")
    assert lies_in(tmp_path / "other" / "c", tmp_path / "a")
    assert not lies_in(tmp_path / "ab", tmp_path / "a")


OWN = ["--forget_file", "forget.jsonl", "--retain_file", "retain.jsonl"]
SHORT = ["--max_new_tokens", "2", "--max_evaluation_rows", "2"]


def test_evaluation_sets_its_own_results_aside_and_nothing_else(place: Path) -> None:
    words = ["evaluate", "--model_name_or_path", "model", "--output_dir", "model", *OWN, *SHORT]
    before = content(place / "model")
    assert main(words) == 0
    assert main([*words, "--overwrite"]) == 0
    assert set(content(place / "model")) == {*before, "evaluation.json", "samples.parquet"}
    assert set(content(place / "model.backup-1")) == {"evaluation.json", "samples.parquet"}


EVALUATE = {
    "a row file": (["--output_file", "forget.jsonl"], "is the file that forget_file names"),
    "a file of the model": (["--output_file", "model/config.json"], "in the folder that model_name_or_path names"),
    "the result": (["--output_file", "made/evaluation.json", "--output_dir", "made"], "is where the results"),
    "a file for a folder": (["--output_dir", "precious.json"], "output_dir: 'precious.json' is a file"),
    "the reference": (
        ["--output_dir", "held", "--retain_results", "held"],
        "retain_results 'held' is the result",
    ),
}


@pytest.mark.parametrize("case", EVALUATE)
def test_evaluation_replaces_no_input(case: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, message = EVALUATE[case]
    Path("held").mkdir()
    Path("held/evaluation.json").touch()
    before = content(place)
    assert main(["evaluate", "--model_name_or_path", "model", *OWN, "--overwrite", *words]) == BAD_INPUT
    assert message in capsys.readouterr().err
    assert content(place) == before


OPTIONS = {
    "model_name_or_path": "out/model",
    "tokenizer_name_or_path": "out/../out/model",
    "forget_file": "out/forget.jsonl",
    "retain_file": "out/retain.jsonl",
    "retain_results": "out/reference.json",
    "attack_model": "out/model",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_training_sets_no_input_aside(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"method": "npo", "model_name_or_path": "model", "output_dir": "out", name: OPTIONS[name]}
    options = {"forget_file": "forget.jsonl", "retain_file": "retain.jsonl"} | options
    words = [word for option, value in options.items() for word in (f"--{option}", value)]
    before = content(place)
    assert main(["unlearn", *words, "--overwrite", "--use_cpu"]) == BAD_INPUT
    assert f"overwrite: {name} {OPTIONS[name]!r} lies in output_dir 'out'" in capsys.readouterr().err
    assert content(place) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train_file", "out/forget.jsonl", "--output_dir", "out"], "overwrite: train_file"),
        (["--benchmark", "tofu", "--source", "out", "--output_dir", "out"], "overwrite: source"),
        (["--train_file", "forget.jsonl", "--output_dir", "."], "output_dir: '.' holds the working directory"),
    ],
)
def test_fine_tuning_sets_no_input_aside(
    words: list[str], message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(place)
    options = ["--model_name_or_path", "model", "--overwrite", "--use_cpu"]
    assert main(["finetune", *options, *words]) == BAD_INPUT
    assert message in capsys.readouterr().err
    assert content(place) == before
