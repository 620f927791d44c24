"""TOFU, from the real files where they are at hand, from mini everywhere."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import shutil
from pathlib import Path

import datasets
import pytest

from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.benchmarks.tofu.benchmark import TOFU
from unlearn_hf.benchmarks.tofu.data import TofuData, load_tofu
from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator
from unlearn_hf.cli.main import BAD_INPUT, main

PERTURBED_COLUMNS = ["question", "answer", "paraphrased_answer", "perturbed_answer", "paraphrased_question"]


@pytest.fixture(scope="module")
def folder(data_root: Path) -> Path:
    if not (data_root / "tofu").is_dir():
        pytest.skip("UNLEARN_HF_DATA has no folder tofu: NOT tested on real data")
    return data_root / "tofu"


@pytest.mark.parametrize("split", TOFU.splits)
def test_real_splits(folder, split):
    tofu = load_tofu(split, folder)
    percent = int(split[-2:])
    assert len(tofu["forget"]) == 40 * percent
    assert len(tofu["full"]) == 4000
    # Row for row and in order, for the official splits (which have files) and the slices alike.
    assert tofu["retain"].to_list() + tofu["forget"].to_list() == tofu["full"].to_list()
    assert tofu["retain_perturbed"]["answer"][:] == tofu["full"]["answer"][:400]
    evaluated = tofu["forget_perturbed"]
    assert evaluated.column_names == PERTURBED_COLUMNS
    assert evaluated["question"][:] == tofu["forget"]["question"][-len(evaluated) :]
    assert evaluated["answer"][:] == tofu["forget"]["answer"][-len(evaluated) :]
    assert len(evaluated) == min(40 * percent, 400)


def test_real_evaluation_sets(folder):
    tofu = load_tofu("forget01", folder)
    for name, rows in (("real_authors", 100), ("world_facts", 117)):
        assert len(tofu[name]) == rows
        assert tofu[name].column_names == ["question", "answer", "perturbed_answer"]
        assert {len(wrong) for wrong in tofu[name]["perturbed_answer"]} == {3}
    assert {len(wrong) for wrong in tofu["forget_perturbed"]["perturbed_answer"]} == {5}
    assert len(tofu["idk"]) == 100
    assert all(isinstance(text, str) and text for text in tofu["idk"])
    questions = tofu["full"]["question"]
    assert questions[100] == questions[440]  # never index TOFU by its questions


def test_a_missing_part_names_its_file(folder, tmp_path):
    for name in ("forget01", "forget05", "retain95", "full"):
        shutil.copy(folder / f"{name}.json", tmp_path)
    tofu = load_tofu("forget05", tmp_path)
    assert "holdout" not in tofu
    assert tofu.get("holdout") is None
    with pytest.raises(ValueError, match=r"'holdout': .*holdout05\.json is missing; files there: .*forget01\.json"):
        tofu["holdout"]
    with pytest.raises(ValueError, match="'forgotten': there is no part of this name; there are full, forget, retain"):
        tofu["forgotten"]


def test_official_files_may_be_few_and_gzipped(folder, tmp_path):
    whole = load_tofu("forget01", folder)
    shutil.copy(folder / "forget01.json", tmp_path)
    with pytest.raises(
        ValueError, match=r"neither retain99 nor full is there.*retain99\.json is missing; files there"
    ):
        load_tofu("forget01", tmp_path)
    (tmp_path / "retain99.jsonl.gz").write_bytes(gzip.compress((folder / "retain99.json").read_bytes()))
    few = load_tofu("forget01", tmp_path)
    assert {name: few.fingerprints[name] for name in few} == {name: whole.fingerprints[name] for name in few}
    assert sorted(few) == ["forget", "full", "retain"]
    assert few.fingerprint != whole.fingerprint


@pytest.mark.parametrize("split", TOFU.splits)
def test_mini_has_the_same_shape(split):
    tofu = load_tofu(split, "mini")
    assert isinstance(tofu, TofuData)
    assert (tofu.split, tofu.source) == (split, "mini")
    assert tofu["retain"].to_list() + tofu["forget"].to_list() == tofu["full"].to_list()
    assert tofu["forget_perturbed"].column_names == PERTURBED_COLUMNS
    evaluated = tofu["forget_perturbed"]
    assert evaluated["question"][:] == tofu["forget"]["question"][-len(evaluated) :]
    assert len(tofu["holdout"]) == len(evaluated)
    assert isinstance(tofu["idk"], list)


def test_fingerprints_follow_the_content(tmp_path):
    tofu = load_tofu("forget10", "mini")
    assert tofu.fingerprint == load_tofu("forget10", "mini").fingerprint != load_tofu("forget05", "mini").fingerprint
    for name in ("full", "forget10", "retain90"):
        rows = tofu["full" if name == "full" else name[:6]].to_list()
        lines = [json.dumps(dict(reversed(row.items()))) for row in rows]  # another order of keys, other escapes
        (tmp_path / f"{name}.json").write_text("\n".join(lines) + "\n\n")
    again = load_tofu("forget10", tmp_path)
    assert again.fingerprints == {name: tofu.fingerprints[name] for name in again}


def test_data_survive_pickling():
    tofu = load_tofu("forget01", "mini")
    again = pickle.loads(pickle.dumps(tofu))
    assert again.fingerprint == tofu.fingerprint
    assert again["forget"].to_list() == tofu["forget"].to_list()
    assert repr(tofu).startswith("TofuData(split='forget01', source='mini', rows={full: 400, forget: 10,")


@pytest.mark.parametrize(
    ("split", "source", "message"),
    [
        ("forget15", "mini", "split: 'forget15' is not known; choose one of forget10, forget01, forget05"),
        ("retain90", "mini", "split: 'retain90' is not known; choose one of"),
        ("forget10", "no/such/folder", "source: 'no/such/folder' is not 'hub', 'mini' or a folder"),
    ],
)
def test_bad_arguments(split, source, message):
    with pytest.raises(ValueError, match=message):
        load_tofu(split, source)


def test_real_holdout_rows_are_attacked_by_default(folder):
    for split, rows in (("forget01", 40), ("forget05", 200), ("forget10", 400), ("forget30", 400)):
        tofu = load_tofu(split, folder)
        if "holdout" not in tofu:
            pytest.skip("UNLEARN_HF_DATA has no holdout rows: NOT tested on real ones")
        assert len(tofu["holdout"]) == rows
        attacked = {request.split: request for request in TofuEvaluator(tofu).requests()}["holdout"]
        assert attacked.details
        assert len(attacked.rows) == rows


def test_holdout_rows_that_are_to_be_forgotten_are_refused(tmp_path, capsys, monkeypatch):
    mini = load_tofu("forget05", "mini")
    for name, part in (("full", "full"), ("forget05", "forget"), ("retain95", "retain")):
        (tmp_path / f"{name}.json").write_text("\n".join(json.dumps(row) for row in mini[part]))
    rows = [*mini["holdout"]][:3]
    leaked = dict(mini["forget"][4])
    leaked["answer"] = f" {leaked['answer'].upper()}  "
    (tmp_path / "holdout05.json").write_text("\n".join(json.dumps(row) for row in [*rows, leaked]))
    message = "holdout05 from .*: 1 of 4 holdout rows are to be forgotten too, the first is row 3"
    with pytest.raises(ValueError, match=message):
        load_tofu("forget05", tmp_path)
    build_model().save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)  # it is told before
    capsys.readouterr()
    words = ["--benchmark", "tofu", "--split", "forget05", "--source", str(tmp_path)]
    assert main(["evaluate", *words, "--model_name_or_path", str(tmp_path / "model")]) == BAD_INPUT
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert re.search(message, told)


def test_hub(monkeypatch):
    mini = load_tofu("forget10", "mini")
    asked = []

    def load_dataset(name, config, split, revision):
        asked.append((name, config, split, revision))
        known = {"full": "full", "forget10": "forget", "retain90": "retain", "forget10_perturbed": "forget_perturbed"}
        if config not in known:
            raise ValueError(f"BuilderConfig '{config}' not found. Available: ['full', 'forget10']")
        return mini[known[config]]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    tofu = load_tofu("forget10", "hub", revision="abc")
    assert tofu.source == "hub@abc"
    assert sorted(tofu) == ["forget", "forget_perturbed", "full", "retain"]
    assert tofu.fingerprints["forget"] == mini.fingerprints["forget"]
    assert {(name, split, revision) for name, _, split, revision in asked} == {("locuslab/TOFU", "train", "abc")}
    with pytest.raises(ValueError, match=r"'holdout': BuilderConfig 'holdout10' not found\. Available"):
        tofu["holdout"]


def test_hub_out_of_reach(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ValueError, match=r"could not reach locuslab/TOFU \(ConnectionError\); go online"):
        load_tofu("forget10", "hub")
