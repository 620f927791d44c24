"""A folder to work in, and the command line run in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.own_rows import TRAINING, write_rows
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
        options: dict[str, str | None] = {
            "method": "npo",
            "model_name_or_path": "model",
            "forget_file": "forget.jsonl",
            "retain_file": "retain.jsonl",
            "output_dir": str(tmp_path / "run"),
            **replaced,
        }
        given = [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]
        return main([verb, *given, *TRAINING, *words])

    return run
