"""LUME: loading, training rows, and the organisers' scores as its description gives them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer

from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.benchmarks.lume.benchmark import TABLE_SPLITS
from unlearn_hf.benchmarks.lume.data import load_lume
from unlearn_hf.benchmarks.lume.evaluator import LumeEvaluator
from unlearn_hf.benchmarks.lume.metrics import aggregate_lume
from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.data.encoding import encode_dataset
from unlearn_hf.data.mini import MINI_LUME
from unlearn_hf.data.templates import TEMPLATES

Rows = list[dict[str, Any]]


def test_mini_has_the_shape() -> None:
    lume = load_lume("all", "mini")
    for name in ("forget", "retain"):
        rows = lume[name]
        assert rows.column_names == ["prompt", "completion", "id", "task", "form"]
        counts = {(task, form): 6 * (5 if (task, form) == ("task2", "qa") else 1)
                  for task in ("task1", "task2", "task3") for form in ("sc", "qa")}  # fmt: skip
        found = list(zip(rows["task"], rows["form"], strict=True))
        assert {pair: found.count(pair) for pair in counts} == counts
    assert len(lume["member"]) == len(lume["nonmember"]) == 12
    forget, retain = ({f"{row['prompt']} {row['completion']}" for row in lume[name]} for name in ("forget", "retain"))
    assert set(lume["member"]["text"]) <= forget
    assert not set(lume["nonmember"]["text"]) & (forget | retain)
    one = load_lume("task2", "mini")
    assert set(one["forget"]["task"]) == {"task2"}
    assert one.fingerprint != lume.fingerprint


def test_real_files(data_root: Path) -> None:
    folder = data_root / "lume"
    if not folder.is_dir():
        pytest.skip("UNLEARN_HF_DATA has no folder lume: NOT tested on real data")
    lume = load_lume("all", folder)
    assert (len(lume["forget"]), len(lume["retain"])) == (2732, 2734)
    assert len(lume["member"]) == len(lume["nonmember"]) == 150
    assert {request.split for request in LumeEvaluator(lume).requests()} == {*TABLE_SPLITS, "member", "nonmember"}
    assert sum(len(load_lume(task, folder)["forget"]) for task in ("task1", "task2", "task3")) == 2732


def test_the_text_goes_on_after_a_space() -> None:
    tokenizer = build_tokenizer()
    rows = load_lume("task2", "mini")["forget"].select(range(3))
    encoded = encode_dataset(rows, tokenizer, TEMPLATES["completion"])
    for row, tokens in zip(rows, encoded, strict=True):
        assert tokenizer.decode(tokens["input_ids"]) == f"{row['prompt']} {row['completion']}</s>"
        labels = [token for token in tokens["labels"] if token != -100]
        assert tokenizer.decode(labels) == f" {row['completion']}</s>"


def mixed(reference: str, index: int) -> str:
    """An answer that is right, right but for spaces and case, half right, or wrong."""
    half = " ".join(reference.split()[: max(1, len(reference.split()) // 2)])
    return (reference, f"  {reference.upper()}\n", f"{half} indeed", "No idea.")[index % 4]


def organisers(generations: dict[str, str], losses: dict[str, list[float]], mmlu: float) -> dict[str, float]:
    """The scores by their description alone, from generations by row id and mean NLL of documents."""
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    found: dict[str, list[float]] = {}
    for name in ("forget", "retain"):
        for line in (MINI_LUME / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            kind = re.findall(r"sc|qa", row["id"])[-1]
            answer = generations[row["id"]]
            if kind == "sc":
                value = scorer.score(row["output"], answer)["rougeL"].recall
            else:
                value = float(answer.strip().lower() == row["output"].strip().lower())
            label = {"sc": "regurgitation", "qa": "knowledge"}[kind]
            found.setdefault(f"lume_{name}_{row['task'].lower()}_{label}", []).append(value)
    scores = {name: sum(values) / len(values) for name, values in found.items()}
    assert len(scores) == 12
    terms = [1 - value if "forget" in name else value for name, value in scores.items()]
    scores["lume_task_aggregate"] = len(terms) / sum(1 / term for term in terms)
    pairs = list(product(losses["member"], losses["nonmember"]))
    area = sum((other > member) + 0.5 * (other == member) for member, other in pairs) / len(pairs)
    scores["lume_membership_auc"] = area
    scores["lume_membership_score"] = 1 - 2 * abs(area - 0.5)
    scores["lume_final_score"] = (scores["lume_task_aggregate"] + scores["lume_membership_score"] + mmlu) / 3
    return scores


def test_scores_are_those_of_the_organisers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lume, model, tokenizer = load_lume("all", "mini"), build_model(), build_tokenizer()
    evaluator = LumeEvaluator(lume, mmlu_accuracy=0.3)
    chosen = {
        f"{request.split}/{index}/generation/0": mixed(row["reference"], index)
        for request in evaluator.requests()
        for index, row in enumerate(request.rows)
        if "reference" in row
    }
    monkeypatch.setattr(
        "unlearn_hf.evaluation.engine.generate",
        lambda backend, model, tokenizer, batch, **_: [chosen[prompt.key] for prompt in batch],
    )
    found = evaluator(model, tokenizer, output_dir=tmp_path)

    places: dict[str, int] = {}
    generations = {}
    for name in ("forget", "retain"):
        for row in lume[name]:
            split = f"{name}_{row['task']}_{row['form']}"
            index = places[split] = places.get(split, -1) + 1
            generations[row["id"]] = mixed(row["completion"], index)
    losses: dict[str, list[float]] = {}
    for name in ("member", "nonmember"):
        losses[name] = []
        for row in lume[name]:
            ids = torch.tensor([tokenizer(row["text"])["input_ids"]])
            with torch.no_grad():
                losses[name].append(model.eval()(input_ids=ids, labels=ids).loss.item())
    expected = organisers(generations, losses, 0.3)
    assert set(expected) <= set(found)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    assert 0 < expected["lume_task_aggregate"] < 1

    assert evaluator.last_result is not None
    table = evaluator.last_result.samples
    measured = table[table["split"] == "member"]["answer_mean_nll"]
    assert measured.to_list() == pytest.approx(losses["member"], abs=1e-5)
    out = tmp_path / "again.json"
    assert main(["evaluate", "--from_log", str(tmp_path), "--output_file", str(out)]) == 0
    assert json.loads(out.read_text()) == pytest.approx(found, abs=1e-12)
    few = aggregate_lume(table[table["split"] != "retain_task3_qa"])
    assert "lume_task_aggregate" not in few  # never of eleven
    assert "lume_final_score" not in aggregate_lume(table)


@pytest.mark.parametrize("accuracy", [-0.1, 1.5, 46.3])
def test_an_accuracy_is_a_share(accuracy: float) -> None:
    with pytest.raises(ValueError, match=r"mmlu_accuracy: .* is not in \[0, 1\]"):
        LumeEvaluator(load_lume("all", "mini"), mmlu_accuracy=accuracy)


def change(name: str, edit: Callable[[Rows], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        edit(rows)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return apply


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "form": (change("forget", lambda rows: rows[2].update(id="12xy3")), r"forget.jsonl, line 3: the id '12xy3' ends"),
    "no number": (
        change("retain", lambda rows: rows[0].update(id="12qa")),
        r"line 1: the id '12qa' ends",
    ),
    "task": (
        change("forget", lambda rows: rows[1].update(task="Task4")),
        r"line 2: the task 'Task4' is none of",
    ),
    "column": (change("forget", lambda rows: rows[0].pop("output")), r"line 1: text in id, input, output, task"),
    "missing": (lambda folder: (folder / "retain.jsonl").unlink(), r"retain.jsonl is missing; take it from LUME's"),
    "overlap": (
        change("retain", lambda rows: rows.append({**rows[0], "id": "Task1-f0sc1"})),
        r"forget from .*: 1 of 60 rows are in retain too, the first is 'Task1-f0sc1'",
    ),
    "document": (change("mia/member", lambda rows: rows[1].pop("document")), r"member.jsonl, line 2: .* in document"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in MINI_LUME.rglob("*.jsonl"):
        copy = tmp_path / path.relative_to(MINI_LUME)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(path.read_text())
    edit, message = BROKEN[name]
    edit(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_lume("all", tmp_path)
    build_model().save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    capsys.readouterr()
    words = ["--benchmark", "lume", "--source", str(tmp_path), "--model_name_or_path", str(tmp_path / "model")]
    assert main(["unlearn", "--method", "npo", *words, "--output_dir", str(tmp_path / "run")]) == BAD_INPUT
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert re.search(message, told)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(("split", "source", "message"), [
    ("task4", "mini", "split: 'task4' is not known; choose one of all, task1"),
    ("all", "no/folder", "source: 'no/folder' is not 'hub', 'mini' or a folder"),
])  # fmt: skip
def test_bad_arguments(split: str, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_lume(split, source)


def test_documents_may_be_absent(tmp_path: Path) -> None:
    for name in ("forget", "retain"):
        (tmp_path / f"{name}.jsonl").write_text((MINI_LUME / f"{name}.jsonl").read_text())
    lume = load_lume("all", tmp_path)
    with pytest.raises(ValueError, match=r"'member': .*member.jsonl is missing"):
        lume["member"]
    assert {request.split for request in LumeEvaluator(lume).requests()} == set(TABLE_SPLITS)


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {name: [json.loads(line) for line in (MINI_LUME / f"{name}.jsonl").read_text().splitlines()]
            for name in ("forget", "retain")}  # fmt: skip
    splits = {f"{name}_{part}": each for name in rows for part, each in (("train", rows[name][:50]),
                                                                         ("validation", rows[name][50:]))}  # fmt: skip
    monkeypatch.setattr(datasets, "load_dataset", lambda name, revision: splits)
    assert load_lume("all", "hub").fingerprints["forget"] == load_lume("all", "mini").fingerprints["forget"]
    monkeypatch.setattr(datasets, "load_dataset", lambda name, revision: {"train": []})
    with pytest.raises(ValueError, match="has no forget_train, but train"):
        load_lume("all", "hub")

    def gone(name: str, revision: str | None) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", gone)
    with pytest.raises(ValueError, match=r"could not reach .*ConnectionError.*go online with the token that SemEval"):
        load_lume("all", "hub")


def test_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    build_model().save_pretrained("model")
    build_tokenizer().save_pretrained("model")
    lume = ["--benchmark", "lume", "--source", "mini"]
    few = ["--max_evaluation_rows", "2", "--max_new_tokens", "3", "--mmlu_accuracy", "0.25"]
    train = ["--use_cpu", "--max_steps", "2", "--verdict_rows", "4", "--verdict_samples", "1", "--report_to", "none"]
    words = ["--method", "graddiff", "--model_name_or_path", "model", *lume, *few, *train]
    assert main(["unlearn", *words, "--output_dir", "run"]) == 0
    record = json.loads(Path("run/run.json").read_text())
    assert record["configuration"]["template"] == "completion"
    assert record["data"]["benchmark"] == "lume"
    assert json.loads(Path("run/verdict.json").read_text())["rows"]["forget"] == 4
    result = json.loads(Path("run/evaluation.json").read_text())
    names = {metric["name"] for metric in result["metrics"]}
    assert {"lume_final_score", "lume_membership_score", "lume_forget_task2_knowledge"} <= names
    assert result["benchmark"] == "lume"
    assert main(["evaluate", "--model_name_or_path", "run", *few]) == 0
    again = json.loads(Path("run/evaluations/lume_all/evaluation.json").read_text())
    assert [metric["value"] for metric in again["metrics"]] == pytest.approx(
        [metric["value"] for metric in result["metrics"]], abs=1e-6
    )
    assert main(["report", "run"]) == 0
    page = Path("report/report.html").read_text()
    assert "lume_task_aggregate" in page
    assert "lume_final_score" in page
    learn = ["--model_name_or_path", "model", *lume, *few[2:], *train[:3], "--max_evaluation_rows", "1"]
    for subset, rows in (("retain", 60), ("full", 120)):
        assert main(["finetune", *learn, "--subset", subset, "--output_dir", subset]) == 0
        trained = json.loads(Path(f"{subset}/run.json").read_text())["data"]["trained_on"]
        assert sum(each["rows"] for each in trained.values()) == rows
    capsys.readouterr()
    assert main(["list", "benchmarks"]) == 0
    assert "lume --source mini" in capsys.readouterr().out
    assert main(["unlearn", *words, "--output_dir", "other", "--mmlu_accuracy", "25"]) == BAD_INPUT
    assert "mmlu_accuracy: 25.0 is not in [0, 1]" in capsys.readouterr().err
