"""`unlearn-hf evaluate` and `unlearn-hf demo`, run in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_cli import unlearn, workplace
from unlearn_hf.cli import BAD_INPUT, main

ROOT = Path(__file__).parent.parent
__all__ = ["unlearn", "workplace"]  # fixtures
SHORT = ["--max_new_tokens", "4"]


def metrics_of(folder: Path) -> dict[str, float]:
    content = json.loads((folder / "evaluation.json").read_text())
    return {metric["name"]: metric["value"] for metric in content["metrics"]}


def test_a_run_folder_says_what_to_evaluate_it_on(
    unlearn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out.json"
    assert unlearn("--use_lora", *SHORT, "--template", "plain", "--max_evaluation_rows", "5") == 0
    assert {"evaluation.json", "samples.parquet"} <= {path.name for path in run.iterdir()}
    capsys.readouterr()
    words = ["evaluate", "--model_name_or_path", str(run), "--max_evaluation_rows", "5", *SHORT]
    assert main([*words, "--output_file", str(out)]) == 0
    assert "forget_prob " in capsys.readouterr().out
    again = metrics_of(run / "evaluations" / "own")
    assert again == pytest.approx(metrics_of(run))
    assert json.loads(out.read_text()) == again

    assert main(words) == BAD_INPUT
    assert "holds results; --overwrite sets them aside" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert (run / "evaluations" / "own.backup-1" / "evaluation.json").is_file()
    assert main([*words, "--output_dir", str(run), "--overwrite"]) == BAD_INPUT
    assert "is a run folder with results of its own" in capsys.readouterr().err


def test_metrics_from_a_result_file(unlearn: Callable[..., int], tmp_path: Path) -> None:
    assert unlearn(*SHORT) == 0
    out = tmp_path / "deep" / "out.json"
    assert main(["evaluate", "--from_log", str(tmp_path / "run"), "--output_file", str(out)]) == 0
    assert json.loads(out.read_text()) == pytest.approx(metrics_of(tmp_path / "run"))


def test_benchmark_to_evaluation_and_reference(unlearn: Callable[..., int], tmp_path: Path) -> None:
    options = {"method": None, "forget_file": None, "retain_file": None, "benchmark": "tofu", "source": "mini"}
    few = ["--max_evaluation_rows", "3", "--max_steps", "1", *SHORT]
    assert unlearn(*few, "--subset", "retain", verb="finetune", **options) == 0  # type: ignore[arg-type]
    assert "forget_quality" not in metrics_of(tmp_path / "run")
    options |= {"method": "ngdiff", "output_dir": str(tmp_path / "second"), "reference": str(tmp_path / "run")}
    assert unlearn(*few, **options) == 0  # type: ignore[arg-type]
    assert 0 <= metrics_of(tmp_path / "second")["forget_quality"] <= 1
    words = [
        "--reference_model",
        str(tmp_path / "run"),
        "--gradient_norm_attack",
        "--max_evaluation_rows",
        "3",
        *SHORT,
    ]
    assert main(["evaluate", "--model_name_or_path", str(tmp_path / "second"), *words]) == 0
    attacked = metrics_of(tmp_path / "second" / "evaluations" / "tofu_forget10")
    assert {"mia_gradient_norm_auc", "mia_reference_auc"} <= set(attacked)
    card = (tmp_path / "second" / "README.md").read_text()
    assert "| forget_quality |" in card
    assert "| forget_quality_open_unlearning |" not in card


def test_a_training_file_gives_the_data_and_nothing_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = str(ROOT / "configs" / "tofu" / "eupmu.yaml")
    words = ["evaluate", "--config", config, "--model_name_or_path", str(tmp_path / "absent")]
    assert main(words) == BAD_INPUT
    told = capsys.readouterr().err
    assert "absent' is not there" in told
    assert "unknown" not in told
    assert main([*words, "--epsilon", "1"]) == BAD_INPUT
    assert "command line: epsilon: unknown" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "model_name_or_path: missing"),
        (["--model_name_or_path", "model"], "no data are given"),
        (["--model_name_or_path", "model", "--benchmark", "tofu", "--source", "nowhere"], "source: 'nowhere'"),
        (["--model_name_or_path", "model", "--reference", "absent"], "reference: 'absent' is not there"),
        (["--from_log", "absent.json"], "absent.json"),
    ],
)
def test_bad_input(
    words: list[str],
    message: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(workplace)
    assert main(["evaluate", *words]) == BAD_INPUT
    assert message in capsys.readouterr().err


def test_demo_keeps_what_an_earlier_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import unlearn_hf.demo

    seen: list[Path] = []

    def pretend(folder: Path) -> None:
        seen.append(folder)
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text("[]")

    monkeypatch.setattr(unlearn_hf.demo, "run_demo", pretend)
    folder = tmp_path / "demo"
    words = ["demo", "--output_dir", str(folder)]
    assert main(words) == 0
    assert main(words) == BAD_INPUT
    assert "is not empty" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert seen == [folder, folder]
    assert (tmp_path / "demo.backup-1" / "summary.json").is_file()
