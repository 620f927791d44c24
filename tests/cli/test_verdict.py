"""The verdict at the end of `unlearn`: printed, written, in the card, and in the exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from unlearn_hf.cli.main import BAD_INPUT
from unlearn_hf.cli.training import NOT_FORGOTTEN


def test_a_model_that_knows_nothing_is_no_success(
    unlearn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="the model did not know these rows"):
        assert unlearn("--fail_unless_forgotten", "--held_back_rows", "3", "--verdict_samples", "1") == NOT_FORGOTTEN
    printed = capsys.readouterr().out
    assert "probability of answers to forget" in printed
    assert "Forgotten: not measured" in printed
    folder = tmp_path / "run"
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["known_before"] is False
    assert verdict["rows"]["held_back"] is True
    card = (folder / "README.md").read_text()
    assert "## Verdict" in card
    assert "| probability of answers to keep |" in card
    record = json.loads((folder / "run.json").read_text())
    assert record["verdict"] == {"forgotten": "not_measured", "kept": verdict["kept"]}


def test_without_a_verdict(unlearn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert unlearn("--verdict", "false", "--fail_unless_forgotten") == BAD_INPUT
    assert "fail_unless_forgotten: True needs the verdict" in capsys.readouterr().err
    assert unlearn("--verdict", "false") == 0
    assert "Forgotten" not in capsys.readouterr().out
    assert not (tmp_path / "run" / "verdict.json").exists()
    assert "## Verdict" not in (tmp_path / "run" / "README.md").read_text()
