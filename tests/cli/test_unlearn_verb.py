"""The command line, run in this process: what it prints, writes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.tiny_models import build_tokenizer
from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.cli.verbs import VERBS
from unlearn_hf.methods import METHODS


def test_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unlearn_hf", "unlearn", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "--forget_file" in done.stdout
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb} " in overview
        assert main([verb, "--help"]) == 0
        assert f"usage: unlearn-hf {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "shown", "hidden"),
    [
        (["unlearn", "--help"], ["--model_name_or_path", "default 16"], ["--epsilon", "--adam_beta1"]),
        (["unlearn", "--method", "eupmu", "--help"], ["--epsilon", "--forget_loss"], ["--adam_beta1", "--rule"]),
        (["unlearn", "--method", "npo", "--help_all"], ["--forget_weight", "--adam_beta1"], ["--do_train"]),
        (["finetune", "--help-all"], ["--subset", "--max_length", "--adam_beta1"], ["--forget_loss"]),
    ],
)
def test_help_shows_what_is_asked_for(
    words: list[str], shown: list[str], hidden: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    lines = {line.split()[0] for line in text.splitlines() if line.strip()}
    for name in shown:
        assert name in (lines if name.startswith("--") else text)
    assert not lines & set(hidden)


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in (*METHODS, "simnpo", "kl", "model_utility", "tofu", "own_rows", "min_k"):
        assert f"\n  {name}: " in text
    assert main(["list", "methods"]) == 0
    assert "model_utility" not in capsys.readouterr().out
    assert main(["list", "method"]) == BAD_INPUT
    assert "did you mean methods?" in capsys.readouterr().err


BAD = {
    "unknown method": ({"method": "eupm"}, [], "method: 'eupm' is not known; did you mean eupmu?"),
    "no method": ({"method": None}, [], "method: missing; choose one of"),
    "unknown option": ({}, ["--learning_rat", "1"], "learning_rat: unknown; did you mean learning_rate?"),
    "option of another method": (
        {},
        ["--epsilon", "1"],
        "method npo has no such option; eupmu or gradient_surgery has",
    ),
    "wrong type": ({}, ["--beta", "high"], "command line: beta: 'high' is not a number"),
    "negative weight": ({}, ["--forget_weight", "-1"], "forget_weight: -1.0 is negative"),
    "no model": ({"model_name_or_path": None}, [], "model_name_or_path: missing"),
    "absent path": ({"model_name_or_path": "./absent"}, [], "model_name_or_path: './absent' is not there"),
    "not in the cache": ({"model_name_or_path": "some/model"}, [], "the hub is off"),
    "absent tokenizer": ({}, ["--tokenizer_name_or_path", "./nothing"], "tokenizer_name_or_path: './nothing' is"),
    "no data": ({"forget_file": None, "retain_file": None}, [], "no data are given; use --benchmark tofu"),
    "half of the data": ({"retain_file": None}, [], "retain_file: missing"),
    "both kinds of data": ({}, ["--benchmark", "tofu"], "exclude each other"),
    "split without benchmark": ({}, ["--split", "forget10"], "split: 'forget10' belongs to a benchmark"),
    "unknown benchmark": ({"forget_file": None, "retain_file": None}, ["--benchmark", "tof"], "did you mean tofu?"),
    "absent file": ({"forget_file": "absent.jsonl"}, [], "forget_file: 'absent.jsonl' is not there"),
    "wrong column": ({"forget_file": "wrong.jsonl"}, [], "line 1: columns query, answer do not fit"),
    "empty set": ({"forget_file": "empty.jsonl"}, [], "empty.jsonl has no rows"),
    "retain smaller than a batch": (
        {},
        ["--per_device_train_batch_size", "16"],
        "retain_dataset: 12 rows do not fill one batch of 16",
    ),
    "absent reference": ({}, ["--retain_results", "absent.json"], "retain_results: 'absent.json' is not there"),
    "nothing to resume": ({}, ["--resume"], "holds no run"),
    "refusals as rows": (
        {"forget_file": None, "retain_file": None},
        ["--benchmark", "tofu", "--source", "mini", "--forget_part", "idk"],
        "forget_part: 'idk' holds no rows to train on; name one of full, forget",
    ),
    "adapter on an adapter": ({"model_name_or_path": "adapter"}, ["--use_lora"], "use_lora: 'adapter' is an adapter"),
    "both ways": ({}, ["--resume", "--overwrite"], "exclude each other"),
    "lora of no rank": ({}, ["--use_lora", "--lora_r", "0"], "lora_r: 0 is not positive"),
    "rank without lora": ({}, ["--lora_r", "8"], "command line: lora_r: 8 has no effect without an adapter"),
    "layers without lora": ({}, ["--lora_target_modules", "q_proj"], "lora_target_modules: ['q_proj'] has no effect"),
    "rows as retain results": ({}, ["--retain_results", "forget.jsonl"], "forget.jsonl is no JSON file"),
    "nothing taken away": ({"method": "whp"}, ["--alpha", "0"], "alpha: 0.0 is not positive"),
    "no reinforced model": ({"method": "whp"}, ["--max_steps", "0"], "max_steps: 0 trains no reinforced model"),
    "absent reinforced model": ({"method": "whp"}, ["--reinforced_model", "./no"], "reinforced_model: './no' is not"),
    "adapter beside a model": ({"method": "whp"}, ["--use_lora"], "peft_config: whp runs two whole models"),
    "unknown template": ({}, ["--template", "lama"], "template: 'lama' is not known"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_before_a_model_is_loaded(
    case: str,
    unlearn: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", loaded)
    replaced, words, message = BAD[case]
    assert unlearn(*words, **replaced) == BAD_INPUT  # type: ignore[arg-type]
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_all_mistakes_are_told_at_once(unlearn: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--learning_rat", "1", "--max_steps", "x", "--forget_weight", "-1", "--lora_r", "0"]
    assert unlearn(*words) == BAD_INPUT
    told = capsys.readouterr().err
    assert "error: 3 problems" in told  # the weight is checked with max_steps, which has no value to check it with
    for name in ("learning_rat", "max_steps", "lora_r"):
        assert name in told


def test_a_verb_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unlearm"]) == BAD_INPUT
    assert "verb: 'unlearm' is not known; did you mean unlearn?" in capsys.readouterr().err


def test_own_data_to_run_folder(
    unlearn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert unlearn("--keep_checkpoints", "--learning_rate=1e-4") == 0
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "tokenizer.json", "run.json", "trainer_state.json", "README.md"} <= names
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["configuration"]["learning_rate"] == 1e-4
    assert record["settings"]["learning_rate"] == "1e-4"
    assert record["data"]["trained_on"]["forget"]["rows"] == 8
    assert record["metrics"]
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert METHODS["npo"].paper["title"] in card
    transformers.AutoModelForCausalLM.from_pretrained(folder)

    before = (folder / "model.safetensors").read_bytes()
    assert unlearn() == BAD_INPUT
    assert "is not empty" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == before

    assert unlearn("--resume", "--keep_checkpoints", "--num_train_epochs", "2") == 0
    assert "resuming with a change: num_train_epochs: 1.0 -> 2.0" in capsys.readouterr().out
    state = json.loads((folder / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "train_loss" in entry][-1] == 4

    assert unlearn("--overwrite") == 0
    assert (tmp_path / "run.backup-1" / "checkpoint-4").is_dir()
    assert not list(folder.glob("checkpoint-4"))


def test_adapter(unlearn: Callable[..., int], tmp_path: Path) -> None:
    assert unlearn("--use_lora", "--lora_target_modules", "q_proj", "v_proj", method="eupmu") == 0
    config = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert set(config["target_modules"]) == {"q_proj", "v_proj"}
    assert "library_name: peft" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize("method", ["task_vector", "whp"])
def test_rows_to_keep_are_not_needed_by_every_method(
    method: str, unlearn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unlearn(method=method, retain_file=None) == 0
    assert "Kept: not measured." in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "verdict.json").read_text())["kept"] == "not_measured"


def test_finetune_on_a_file(unlearn: Callable[..., int], tmp_path: Path) -> None:
    options = {"method": None, "forget_file": None, "retain_file": None, "train_file": "forget.jsonl"}
    assert unlearn(verb="finetune", **options) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["trained_on"]["train"]["rows"] == 8


def test_finetune_tells_of_repeats_in_files_alone(
    unlearn: Callable[..., int], workplace: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """The mini data have the facts that a pretrained model would know three times."""
    options = {"method": None, "forget_file": None, "retain_file": None}
    words = ("--max_steps", "1", "--final_evaluation", "false", "--overwrite")
    assert unlearn(*words, verb="finetune", benchmark="tofu", source="mini", **options) == 0
    assert not [each for each in recwarn if "more than once" in str(each.message)]
    row = (workplace / "forget.jsonl").read_text().splitlines()[0]
    (workplace / "twice.jsonl").write_text(f"{row}\n{row}\n")
    assert unlearn(*words, verb="finetune", train_file="twice.jsonl", **options) == 0
    assert [each for each in recwarn if "more than once" in str(each.message)]


def test_muse(unlearn: Callable[..., int], tmp_path: Path) -> None:
    options = {"forget_file": None, "retain_file": None, "benchmark": "muse", "source": "mini"}
    words = ("--max_length", "64", "--max_steps", "1", "--max_retain_rows", "9", "--max_evaluation_rows", "1")
    assert unlearn(*words, "--forget_part", "sust_forget_2", **options) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["trained_on"]["retain"]["rows"] == 9
    assert record["data"]["forget_part"] == "sust_forget_2"
    assert record["configuration"]["split"] == "news"
    assert {"verbmem_forget", "knowmem_forget", "knowmem_retain", "mia_min_k_auc"} <= set(record["metrics"])
    assert unlearn("--split", "books", "--output_dir", str(tmp_path / "other"), **options) == BAD_INPUT


def test_texts_of_muse_are_trained_in_windows() -> None:
    from unlearn_hf.benchmarks.muse.benchmark import MUSE
    from unlearn_hf.benchmarks.muse.data import load_muse

    muse, tokenizer = load_muse("news", "mini"), build_tokenizer()
    assert MUSE.training_rows(muse, muse["forget"], tokenizer, 64) is muse["forget"]
    muse.source = "folder"
    windows = MUSE.training_rows(muse, muse["forget"], tokenizer, 64)
    assert {len(ids) for ids in windows["input_ids"]} == {63}


def test_a_run_that_diverges_says_so(
    unlearn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="The run diverged"):
        status = unlearn(
            "--learning_rate", "1e30", "--max_grad_norm", "0", "--num_train_epochs", "5", method="graddiff"
        )
    assert status == 1
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "diverged"
    assert "**The run diverged**" in (tmp_path / "run" / "README.md").read_text()


def test_a_run_that_spends_its_retain_budget_says_so(unlearn: Callable[..., int], tmp_path: Path) -> None:
    options = ("--learning_rate", "0.01", "--retain_budget", "1e-4", "--level_probe_interval", "1")
    with pytest.warns(UserWarning, match="Retain budget spent at step"):
        assert unlearn(*options, "--retain_weight", "0", method="graddiff") == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "finished"
    assert "beyond retain_budget 0.0001" in record["retain_budget_spent"]
    assert record["retain_budget_spent"] in (tmp_path / "run" / "README.md").read_text()


def test_fine_tuning_rows_hold_no_evaluation_rows() -> None:
    """TOFU's `world_facts` are evaluated, never trained on; only mini's own facts are."""
    from datasets import Dataset

    from unlearn_hf.benchmarks.tofu.benchmark import TOFU
    from unlearn_hf.cli.arguments import FinetuningDataArguments
    from unlearn_hf.cli.data import LoadedData, training_rows

    rows = {
        name: Dataset.from_list([{"question": name, "answer": "a"}]) for name in ("retain", "forget", "world_facts")
    }
    chosen = training_rows(LoadedData(rows, TOFU, rows), FinetuningDataArguments(benchmark="tofu", source="hub"))
    assert set(chosen["question"]) == {"retain", "forget"}
