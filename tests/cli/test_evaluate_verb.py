"""`unlearn-hf evaluate` and `unlearn-hf demo`, run in this process."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.cli.verbs.evaluate import parse
from unlearn_hf.common.checks import GENERATION_BACKENDS
from unlearn_hf.common.files import write_json

ROOT = Path(__file__).parents[2]
OWN = ["--forget_file", "forget.jsonl", "--retain_file", "retain.jsonl"]
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


def test_two_models_side_by_side_are_evaluated_from_their_folder(unlearn: Callable[..., int], tmp_path: Path) -> None:
    assert unlearn(*SHORT, "--max_evaluation_rows", "5", method="whp") == 0
    run = tmp_path / "run"
    assert {"whp.py", "verdict.json"} <= {path.name for path in run.iterdir()}
    assert "trust_remote_code=True" in (run / "README.md").read_text()
    assert main(["evaluate", "--model_name_or_path", str(run), "--max_evaluation_rows", "5", *SHORT]) == 0
    assert metrics_of(run / "evaluations" / "own") == pytest.approx(metrics_of(run))
    assert main(["report", str(run), "--output_dir", str(tmp_path / "report")]) == 0
    assert "whp" in (tmp_path / "report" / "report.html").read_text()


def test_backends_generate_the_same_texts(
    unlearn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--max_new_tokens", "12", "--max_evaluation_rows", "5"]
    assert unlearn(*few, "--generation_backend", "transformers") == 0
    texts = {"unlearn": pd.read_parquet(tmp_path / "run" / "samples.parquet")["generation"].tolist()}
    assert any(texts["unlearn"])
    words = ["evaluate", "--model_name_or_path", str(tmp_path / "run"), *few, "--generation_backend"]
    for backend in GENERATION_BACKENDS:
        if backend == "vllm":  # tests/evaluation/test_vllm_generation.py, where it is installed
            continue
        assert main([*words, backend, "--output_dir", str(tmp_path / backend)]) == 0
        texts[backend] = pd.read_parquet(tmp_path / backend / "samples.parquet")["generation"].tolist()
    assert all(each == texts["unlearn"] for each in texts.values())
    capsys.readouterr()
    assert main([*words, "slow"]) == BAD_INPUT
    assert "generation_backend: 'slow'" in capsys.readouterr().err


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
    options |= {"method": "ngdiff", "output_dir": str(tmp_path / "second"), "retain_results": str(tmp_path / "run")}
    assert unlearn(*few, **options) == 0  # type: ignore[arg-type]
    assert 0 <= metrics_of(tmp_path / "second")["forget_quality"] <= 1
    words = [
        "--attack_model",
        str(tmp_path / "run"),
        "--attacks",
        "gradient_norm",
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
        (["--model_name_or_path", "model", "--retain_results", "absent"], "retain_results: 'absent' is not there"),
        (["--from_log", "absent.json"], "absent.json"),
        (["--from_log", "broken.gz"], "broken.gz: the gzip file is broken"),
        (["--from_log", "a.json", "--output_dir", "a"], "output_dir: has no effect with --from_log"),
        (["--from_log", "a.json", "--max_evaluation_rows", "5"], "max_evaluation_rows: has no effect"),
        (["--from_log", "a.json", "--model_name_or_path", "model"], "model_name_or_path: has no effect"),
        (["--model_name_or_path", "model", *OWN, "--protocol", "official"], "protocol: 'official' has no effect"),
        (["--model_name_or_path", "model", *OWN, "--attacks", "gradient_norm"], "attacks: ['gradient_norm'] has no"),
        (["--model_name_or_path", "model", *OWN, "--compatibility", "open_unlearning"], "compatibility: 'open_un"),
        (
            ["--model_name_or_path", "model", *OWN, "--retain_results", "model"],
            "retain_results: ",
        ),
        (["--model_name_or_path", "model", *OWN, "--attack_model", "model"], "attack_model: 'model' has no"),
        (["--model_name_or_path", "model", "--attack_model", "./m"], "attack_model: './m' is not there"),
        (["--model_name_or_path", "model", "--tokenizer_name_or_path", "."], "tokenizer_name_or_path: the folder"),
        (["--model_name_or_path", "model", *OWN, "--split", "forget"], "split: 'forget' belongs to a benchmark"),
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
    Path("broken.gz").write_bytes(gzip.compress(b"{}")[:10] + b"\xff" * 20)
    assert main(["evaluate", *words]) == BAD_INPUT
    assert message in capsys.readouterr().err


TOFU = {"benchmark": "tofu", "split": "forget05", "source": "mini", "max_length": 99, "template": "plain"}
MUSE = {"benchmark": "muse", "split": "news", "source": "hub", "revision": "a1", "forget_part": "scal_forget_1"}
FILES = {"forget_file": "f.jsonl", "retain_file": "r.jsonl", "max_forget_rows": 4, "max_length": 99}


@pytest.mark.parametrize(
    ("recorded", "words", "expected"),
    [
        (TOFU, "", {**TOFU, "retain_results": "here"}),
        (TOFU, "--benchmark tofu", {**TOFU, "retain_results": "here"}),
        (TOFU, "--split forget01", {**TOFU, "split": "forget01", "retain_results": None}),
        (TOFU, "--max_length 7 --template auto", {**TOFU, "max_length": 7, "template": "auto"}),
        (TOFU, "--benchmark muse", {"split": "news", "source": "hub", "max_length": 2048, "template": "plain"}),
        (TOFU, "--forget_file a --retain_file b", {"benchmark": None, "max_length": 512, "retain_results": None}),
        (MUSE, "--benchmark muse", MUSE),
        (MUSE, "--split books", {**MUSE, "split": "books", "forget_part": None}),
        (MUSE, "--source mini", {**MUSE, "source": "mini", "revision": None}),
        (FILES, "", {**FILES, "retain_results": None}),
        (FILES, "--retain_file b", {**FILES, "retain_file": "b"}),
        (FILES, "--forget_file a", {**FILES, "forget_file": "a", "max_forget_rows": None}),
        (FILES, "--benchmark muse", {"forget_file": None, "max_length": 2048, "retain_results": None}),
        (FILES, "--benchmark tofu", {"forget_file": None, "split": "forget10", "max_length": 512}),
    ],
)
def test_what_is_taken_from_the_record_of_a_run(
    recorded: dict[str, object],
    words: str,
    expected: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here").touch()
    write_json(Path("run/run.json"), {"configuration": {**recorded, "retain_results": "here"}})
    for folder in ("run", "run/checkpoint-3"):
        found = parse(["--model_name_or_path", folder, *words.split()])
        values = {**vars(found.evaluate), **vars(found.data), "retain_results": found.evaluation.named_retain_results}
        assert {name: values[name] for name in expected} == expected


def test_a_log_is_read_with_its_set_and_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    log = {"avg_gt_loss": {"0": 0.5}, "average_perturb_loss": {"0": [1.0]}, "avg_paraphrased_loss": {"0": 0.5}}
    Path("single.json").write_text(json.dumps(log))
    write_json(Path("run/run.json"), {"configuration": {**TOFU, "retain_results": "single.json"}})
    Path("config.yaml").write_text("model_name_or_path: run\nmax_evaluation_rows: 5\nlearning_rate: 1")
    words = ["evaluate", "--from_log", "single.json", "--config", "config.yaml"]
    assert main(words) == BAD_INPUT
    assert "pass split=" in capsys.readouterr().err
    assert main([*words, "--split", "forget"]) == 0
    printed = capsys.readouterr().out
    assert "forget_prob " in printed
    assert "forget_quality" not in printed  # the run's reference is none of the log's
    assert "more under other definitions; --output_file writes them)" in printed
    assert main([*words, "--split", "forget", "--output_file", "out.json"]) == 0
    assert "more under other definitions; they are in out.json)" in capsys.readouterr().out


def test_demo_keeps_what_an_earlier_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import unlearn_hf.cli.demo

    seen: list[Path] = []

    def pretend(folder: Path) -> None:
        seen.append(folder)
        (folder / "summary.json").write_text("[]")

    monkeypatch.setattr(unlearn_hf.cli.demo, "run_demo", pretend)
    folder = tmp_path / "demo"
    words = ["demo", "--output_dir", str(folder)]
    assert main(words) == 0
    assert main(words) == BAD_INPUT
    assert "is not empty" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert seen == [folder, folder]
    assert (tmp_path / "demo.backup-1" / "summary.json").is_file()
