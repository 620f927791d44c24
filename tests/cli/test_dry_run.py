"""A dry run: it says what the run would do, and leaves no trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from unlearn_hf.cli.main import BAD_INPUT


def listing(folder: Path) -> list[tuple[str, float]]:
    return sorted((str(path), path.stat().st_mtime) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("replaced", "words", "shown"),
    [
        (
            {},
            [],
            ["forget   8 rows", "retain   12 rows", "; 4 of them held back", "epochs 1", "learning_rate 0.001  (own"],
        ),
        ({"method": "ngdiff"}, ["--use_lora"], ["gradients", "learning_rate 0.007  (own data)"]),
        ({"method": "npo"}, ["--retain_loss", "kl", "--reference_device", "cpu"], ["reference"]),
        (
            {"method": "npo"},
            ["--forget_tokens", "new_words"],
            ["forget   8 rows", ">>> It<<< is>>> forget <<<0>>>.</s><<<"],
        ),
        ({"method": "gru"}, ["--dry_run", "measure"], ["time     about", "s a step on cpu"]),
        ({"method": "task_vector", "retain_file": None}, ["--dry_run", "measure"], ["time     about"]),
        ({"method": None, "verb": "finetune"}, ["--dry_run", "measure"], ["time     about"]),
        ({"method": "whp"}, ["--reinforced_model", "model"], ["steps    none\n", "trained  0 of", "weights"]),
        ({"method": None, "verb": "finetune"}, [], ["train    20 rows", "steps    5, 5 an epoch, of 4 rows\n"]),
    ],
)
def test_says_what_would_happen_and_writes_nothing(
    unlearn: Callable[..., int],
    workplace: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    replaced: dict[str, str | None],
    words: list[str],
    shown: list[str],
) -> None:
    before = listing(workplace), listing(tmp_path)
    asked = words if "--dry_run" in words else [*words, "--dry_run"]
    assert unlearn(*asked, **replaced) == 0
    assert (listing(workplace), listing(tmp_path)) == before
    assert not (tmp_path / "run").exists()
    out = capfd.readouterr().out
    assert "dry run: nothing is written\n" in out
    for text in [*shown, "parameters", "memory   about", "disk     about", "Who is author 0?"]:
        assert text in out, text
    assert ">>>" in out
    assert "new_words" in words or "0.</s><<<" in out


def test_its_settings_and_steps_are_those_of_the_run(
    unlearn: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert unlearn("--stop_when", "forget_prob < 0", "--dry_run") == 0
    told = capfd.readouterr().out
    assert unlearn("--stop_when", "forget_prob < 0", "--final_evaluation", "false", "--verdict", "false") == 0
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert f"steps    at most {state['max_steps']}," in told
    configuration = json.loads((tmp_path / "run" / "run.json").read_text())["configuration"]
    for name in ("held_back_rows", "learning_rate"):
        assert f"\n  {name} {configuration[name]}  (own data)" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dry_run", "maybe"], "dry_run: 'maybe' is not known; give nothing, or 'measure'."),
        (["--dry_run", "--held_back_rows", "10"], "retain_dataset: 2 rows do not fill one batch of 4"),
        (["--dry_run", "--retain_file", "forget.jsonl"], "8 of 8 rows are in retain_dataset too"),
        (["--dry_run", "--use_lora", "--lora_target_modules", "nothing"], "no adapter can be added"),
    ],
)
def test_refuses_what_the_run_would_refuse(
    unlearn: Callable[..., int], capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert unlearn(*words) == BAD_INPUT
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
