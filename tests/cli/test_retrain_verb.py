"""`unlearn-hf retrain`: the target's recipe on the retain rows, and results that later runs find by themselves."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.own_rows import write_rows
from tests.tiny_models import build_model
from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.common.files import write_json
from unlearn_hf.evaluation.retain_registry import REGISTRY, base_of, find, read_registry, register
from unlearn_hf.models.weights import BaseModel, folder_fingerprint

FEW = ["--max_evaluation_rows", "3", "--max_new_tokens", "4"]
OWN: dict[str, str | None] = {"method": None}
MINI: dict[str, str | None] = {
    "method": None,
    "forget_file": None,
    "retain_file": None,
    "benchmark": "tofu",
    "source": "mini",
}
RECIPE = ["--learning_rate", "3e-3", "--max_steps", "2", "--template", "plain", "--seed", "5"]


def retrain(*words: str) -> int:
    return main(["retrain", "--use_cpu", "--disable_tqdm", *words])


@pytest.mark.parametrize(("data", "shown"), [(MINI, "forget_quality"), (OWN, "the retain model (")])
def test_the_gold_standard_is_trained_registered_and_found(
    data: dict[str, str | None],
    shown: str,
    unlearn: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "target"
    assert unlearn(*RECIPE, *FEW, verb="finetune", **{**data, "output_dir": str(target)}) == 0
    capsys.readouterr()
    assert retrain("--target", str(target), "--output_dir", str(tmp_path / "retain")) == 0
    assert f"the recipe is that of {target}: base model model" in capsys.readouterr().out
    record = json.loads((tmp_path / "retain" / "run.json").read_text())
    assert record["verb"] == "retrain"
    first = json.loads((target / "run.json").read_text())
    for name in (
        "model_name_or_path",
        "learning_rate",
        "max_steps",
        "template",
        "seed",
        "per_device_train_batch_size",
    ):
        assert record["configuration"][name] == first["configuration"][name]
    assert record["data"]["trained_on"]["train"]["rows"] < first["data"]["trained_on"]["train"]["rows"]
    (entry,) = read_registry(tmp_path / REGISTRY)
    assert entry["file"] == "retain/evaluation.json"

    words = ["--max_steps", "1", "--template", "plain", *FEW]
    options = {**data, "method": "npo", "model_name_or_path": str(target)}
    assert unlearn(*words, **{**options, "output_dir": str(tmp_path / "run")}) == 0
    printed = capsys.readouterr().out
    assert "retain results: " in printed
    assert "retain/evaluation.json (registered in" in printed
    assert shown in printed
    assert unlearn(*words, "--retain_results", "none", **{**options, "output_dir": str(tmp_path / "without")}) == 0
    printed = capsys.readouterr().out
    assert "retain results: " not in printed
    assert shown not in printed

    assert main(["evaluate", "--model_name_or_path", str(target), *FEW]) == 0
    printed = capsys.readouterr().out
    assert "retain/evaluation.json (registered in" in printed
    assert shown in printed
    assert main(["evaluate", "--model_name_or_path", str(tmp_path / "retain"), *FEW]) == 0
    assert "retain results: " not in capsys.readouterr().out  # it is not compared with itself


@pytest.fixture
def registered(tmp_path: Path) -> dict[str, Any]:
    """A registry with one result, and arguments of `find` that fit it."""
    for name, seed in (("base", 0), ("other", 1)):
        build_model(seed).save_pretrained(tmp_path / name)
    runs = (("target", "finetune", "base"), ("run", "unlearn", "target"), ("stranger", "finetune", "other"))
    for run, verb, start in runs:
        write_json(
            tmp_path / run / "run.json",
            {"verb": verb, "configuration": {"model_name_or_path": str(tmp_path / start)}},
        )
    result = tmp_path / "retain" / "evaluation.json"
    write_json(result, {"metrics": []})
    evaluated = {"benchmark": "tofu", "fingerprint": "f", "protocol": "all", "settings": {"template": "plain"}}
    trained = {"forget_part": None, "max_retain_rows": None}
    register(tmp_path / REGISTRY, result, evaluated, trained, BaseModel.named(str(tmp_path / "base")))
    return {"path": tmp_path / REGISTRY, "evaluated": evaluated, "trained": trained, "model": str(tmp_path / "run")}


def changed(arguments: dict[str, Any], what: str, **values: Any) -> dict[str, Any]:
    return {**arguments, what: {**arguments[what], **values}}


def test_what_fits_is_found_after_moving_everything(registered: dict[str, Any], tmp_path: Path) -> None:
    files, reasons = find(**registered)
    assert [file.resolve() for file in files] == [tmp_path / "retain" / "evaluation.json"]
    assert not reasons
    assert not list(tmp_path.glob(".*.lock"))
    shutil.copytree(tmp_path / "retain", tmp_path / "elsewhere" / "retain")
    shutil.copy(tmp_path / REGISTRY, tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "retain")
    files, _ = find(**{**registered, "path": tmp_path / "elsewhere" / REGISTRY})
    assert [file.resolve() for file in files] == [tmp_path / "elsewhere" / "retain" / "evaluation.json"]
    assert find(**registered)[1][0].endswith("evaluation.json is not taken: the file is gone")


@pytest.mark.parametrize(
    ("what", "values", "reason"),
    [
        ("evaluated", {"benchmark": "muse"}, None),
        ("evaluated", {"fingerprint": "g"}, None),
        ("evaluated", {"protocol": "official"}, "protocol 'all' there and 'official' here"),
        ("evaluated", {"settings": {"template": "llama2"}}, "template 'plain' there and 'llama2' here"),
        ("trained", {"forget_part": "scal_forget_2"}, "retrained without the whole forget set"),
    ],
)
def test_what_was_made_otherwise_is_not_taken(
    what: str, values: dict[str, Any], reason: str | None, registered: dict[str, Any]
) -> None:
    files, reasons = find(**changed(registered, what, **values))
    assert not files
    assert (reason is None) == (not reasons)
    assert reason is None or reason in reasons[0]


def test_models_are_never_mixed(registered: dict[str, Any], tmp_path: Path) -> None:
    files, reasons = find(**{**registered, "model": str(tmp_path / "stranger")})
    assert not files
    assert f"it is of base model {tmp_path / 'base'}, and this model of {tmp_path / 'other'}" in reasons[0]
    files, reasons = find(**{**registered, "model": "some/model"})
    assert not files
    assert "no run.json says what this model was fine-tuned from" in reasons[0]
    build_model(2).save_pretrained(tmp_path / "base")
    files, reasons = find(**registered)
    assert not files
    assert f"{tmp_path / 'base'} as it was then" in reasons[0]


def test_a_changed_result_is_not_taken(registered: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "retain" / "evaluation.json", {"metrics": [1]})
    assert "the file has changed since it was registered" in find(**registered)[1][0]


@pytest.mark.parametrize("content", ["{", "[]", '{"retain_results": [{}]}'])
def test_a_broken_registry(
    content: str, registered: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / REGISTRY).write_text(content)
    assert not find(**registered)[0]
    assert "is not read" in find(**registered)[1][0]
    with pytest.raises(ValueError, match=REGISTRY):
        read_registry(tmp_path / REGISTRY)


def _register_ten(folder: Path, name: str) -> None:
    for number in range(10):
        result = folder / f"{name}{number}" / "evaluation.json"
        write_json(result, {})
        register(folder / REGISTRY, result, {}, {}, BaseModel("m", None))


def test_two_processes_lose_no_entry(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_register_ten, args=(tmp_path, name)) for name in "ab"]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert len(read_registry(tmp_path / REGISTRY)) == 20


def test_base_of_an_adapter_and_of_runs_in_a_circle(tmp_path: Path) -> None:
    build_model().save_pretrained(tmp_path / "base")
    write_json(tmp_path / "adapter" / "adapter_config.json", {"base_model_name_or_path": str(tmp_path / "base")})
    base, run = tmp_path / "base", tmp_path / "run"
    assert base_of(str(tmp_path / "adapter")) == BaseModel(str(base), folder_fingerprint(base))
    write_json(run / "run.json", {"verb": "unlearn", "configuration": {"model_name_or_path": str(run)}})
    assert base_of(str(run)) is None


def _run(folder: Path, **record: Any) -> None:
    configuration = {"model_name_or_path": "model", "benchmark": "tofu", "source": "mini", **record.pop("given", {})}
    write_json(
        folder / "run.json",
        {"verb": "finetune", "status": "finished", "settings": {}, "configuration": configuration, **record},
    )


@pytest.mark.parametrize(
    ("record", "words", "message"),
    [
        (None, [], "target: 'target' is no run folder"),
        ({"verb": "unlearn"}, [], "was unlearned; name the target that it started from, 'model'"),
        ({"given": {"subset": "retain"}}, [], "is not a target model but a retain-only one"),
        ({"status": "interrupted"}, [], "is interrupted; finish it with --resume"),
        ({}, ["--subset", "full"], "subset: `retrain` decides it itself"),
        ({}, ["--model_name_or_path", "model"], "the base model is the target's"),
        ({}, ["--final_evaluation", "false"], "final_evaluation: False leaves no results to register"),
        ({"given": {"benchmark": None, "train_file": "t.jsonl"}}, [], "the target learnt 't.jsonl', so say with"),
        ({}, ["--retain_registry", "forget.jsonl"], "forget.jsonl"),
        (
            {"given": {"benchmark": None, "train_file": "t.jsonl"}},
            ["--forget_file", "forget.jsonl", "--retain_file", "forget.jsonl"],
            "8 of the forget rows are in it too",
        ),
        (
            {"given": {"benchmark": None, "train_file": "t.jsonl"}},
            ["--forget_file", "text.jsonl", "--retain_file", "text.jsonl"],
            "no results to register",
        ),
    ],
)
def test_bad_input(
    record: dict[str, Any] | None,
    words: list[str],
    message: str,
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(workplace, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    write_rows(Path("text.jsonl"), [{"text": "Ada wrote it."}])
    if record is not None:
        _run(Path("target"), **record)
    assert retrain("--target", "target", *words) == BAD_INPUT
    assert message in capsys.readouterr().err
    assert main(["retrain"]) == BAD_INPUT
