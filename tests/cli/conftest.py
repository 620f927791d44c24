"""A folder to work in, and the command line run in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.cli.own_rows import TRAINING, own_words, write_rows
from tests.cli.sweep_words import sweep_words
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.cli.main import main


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and two files of rows."""
    folder = tmp_path_factory.mktemp("cli")
    build_model().save_pretrained(folder / "model")
    build_tokenizer().save_pretrained(folder / "model")
    for name, count in (("forget", 8), ("retain", 12)):
        rows = [{"question": f"Who is author {i}?", "answer": f"It is {name} {i}."} for i in range(count)]
        write_rows(folder / f"{name}.jsonl", rows)
    write_rows(folder / "wrong.jsonl", [{"query": "a", "answer": "b"}])
    (folder / "empty.jsonl").touch()
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    return folder


@pytest.fixture
def unlearn(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `unlearn` on the own rows; a keyword replaces an option, `None` leaves it out."""
    monkeypatch.chdir(workplace)

    def run(*words: str, verb: str = "unlearn", **replaced: str | None) -> int:
        return main([verb, *own_words(tmp_path / "run", **replaced), *TRAINING, *words])

    return run


@pytest.fixture
def words(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Words of a sweep of the own rows in a folder of its own, see `sweep_words`."""
    monkeypatch.chdir(workplace)
    return partial(sweep_words, tmp_path)


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an unlearned run and models to compare it with."""
    folder, here = tmp_path_factory.mktemp("audited"), Path.cwd()
    build_model().save_pretrained(folder / "model")
    build_tokenizer().save_pretrained(folder / "model")
    os.chdir(folder)
    try:
        for name in ("forget", "retain", "holdout"):
            count = 12 if name == "retain" else 8
            rows = [{"question": f"Who wrote book {i}?", "answer": f"Ada {name} {i}."} for i in range(count)]
            write_rows(folder / f"{name}.jsonl", rows)
        common = ["--model_name_or_path", "model", *TRAINING, "--learning_rate", "1e-2", "--max_new_tokens", "4"]
        data = ["--forget_file", "forget.jsonl", "--retain_file", "retain.jsonl", "--holdout_file", "holdout.jsonl"]
        assert main(["unlearn", "--method", "npo", *common, *data, "--output_dir", "run"]) == 0
        for name, file in (("retain", "retain.jsonl"), ("other", "forget.jsonl")):
            assert main(["finetune", *common, "--train_file", file, "--output_dir", name]) == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def run(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of an unlearned run and of models to compare it with, to work in; the folder of the run."""
    shutil.copytree(audited, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return Path("run")
