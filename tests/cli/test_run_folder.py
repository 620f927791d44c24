"""Run folders: never overwritten silently, and with a record."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlearn_hf import __version__
from unlearn_hf.cli.arguments import DataArguments, FinetuningDataArguments, ModelArguments
from unlearn_hf.cli.run_folder import check_run_folder, default_folder, set_aside
from unlearn_hf.common.run_record import RunRecord, changed_settings, hide_secrets, read_record
from unlearn_hf.common.versions import code_commit


def test_an_occupied_folder_is_refused_unless_told(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    check_run_folder(folder, overwrite=False, resume=False)
    folder.mkdir()
    check_run_folder(folder, overwrite=False, resume=False)
    (folder / "file").touch()
    with pytest.raises(ValueError, match=r"output_dir: '.*run' is not empty; --resume .* --overwrite"):
        check_run_folder(folder, overwrite=False, resume=False)
    check_run_folder(folder, overwrite=True, resume=False)
    check_run_folder(folder, overwrite=False, resume=True)


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"resume: '.*' holds no run"):
        check_run_folder(tmp_path / "absent", overwrite=False, resume=True)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"output_dir: '.*' is a file"):
        check_run_folder(tmp_path / "file", overwrite=True, resume=False)


def test_set_aside_keeps_every_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert set_aside(folder, "it is now") is None
    for number in (1, 2):
        folder.mkdir(exist_ok=True)
        (folder / "file").write_text(str(number))
        assert set_aside(folder, "it is now") == tmp_path / f"run.backup-{number}"
    assert list(folder.iterdir()) == []
    assert [(tmp_path / f"run.backup-{number}" / "file").read_text() for number in (1, 2)] == ["1", "2"]


@pytest.mark.parametrize(
    ("data", "last", "adapter", "expected"),
    [
        (DataArguments(benchmark="tofu"), "npo", False, "runs/tofu_forget10_M_npo"),
        (
            DataArguments(benchmark="tofu", split="forget01", source="mini"),
            "npo",
            True,
            "runs/mini_tofu_forget01_M_npo_lora",
        ),
        (FinetuningDataArguments(benchmark="tofu", split="forget05"), "full", False, "runs/tofu_M_full"),
        (FinetuningDataArguments(benchmark="tofu", split="forget05"), "retain", False, "runs/tofu_forget05_M_retain"),
        (DataArguments(forget_file="a/f.jsonl.gz", retain_file="r"), "npo", False, "runs/f_M_npo"),
        (FinetuningDataArguments(train_file="t.jsonl"), "finetuned", False, "runs/t_M_finetuned"),
    ],
)
def test_default_folder(data: DataArguments, last: str, adapter: bool, expected: str) -> None:
    assert default_folder(data, ModelArguments("some/M"), last, adapter) == expected


def test_record(tmp_path: Path) -> None:
    configuration = {"seed": 3, "data_seed": None, "hub_token": "abc", "max_new_tokens": 5, "learning_rate": 1e-5}
    record = RunRecord(tmp_path, "unlearn", {"seed": 3}, configuration, {"fingerprint": "f"}, {"processes": 1})
    record.write()
    assert read_record(tmp_path)["status"] == "running"
    record.finish("finished", metrics={"model_utility": 0.5})
    written = read_record(tmp_path)
    assert written["status"] == "finished"
    assert written["finished"] >= written["started"]
    assert written["seeds"] == {"seed": 3, "data_seed": None}
    assert written["configuration"]["hub_token"] == "<hidden>"
    assert written["configuration"]["max_new_tokens"] == 5
    assert written["versions"]["unlearn_hf"] == __version__
    assert written["versions"]["torch"].startswith("2.")
    assert written["commit"] == code_commit()
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    assert changed_settings(written, {**configuration, "learning_rate": 2e-5, "resume": True}) == [
        "learning_rate: 1e-05 -> 2e-05"
    ]
    assert changed_settings(written, {**configuration, "learning_rate": 2e-5, "seed": 4}, ["seed"]) == ["seed: 3 -> 4"]


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    assert read_record(tmp_path) == {}
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json: not a record"):
        read_record(tmp_path)


def test_secrets() -> None:
    assert hide_secrets({"hub_token": None, "push_to_hub_token": "x", "max_new_tokens": 3}) == {
        "hub_token": None,
        "push_to_hub_token": "<hidden>",
        "max_new_tokens": 3,
    }
