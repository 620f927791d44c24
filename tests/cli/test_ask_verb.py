"""`ask`: both models, one template, and what is refused."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.cli.own_rows import write_rows
from tests.tiny_models import build_tokenizer
from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.data.encoding import encode_pair
from unlearn_hf.data.templates import resolve_template
from unlearn_hf.models.loading import load_model

STEPS = ["--learning_rate", "0.01", "--warmup_steps", "0", "--max_steps", "3"]
QUICK = ["--verdict", "false", "--final_evaluation", "false", *STEPS]
ROWS = {
    "question": lambda i, name: {"question": f"Who is author {i}?", "answer": f"It is {name} {i}."},
    "messages": lambda i, name: {
        "messages": [
            {"role": "user", "content": f"Who is author {i}?"},
            {"role": "assistant", "content": f"It is {name} {i}."},
        ]
    },
    "text": lambda i, name: {"text": f"Who is author {i}? It is {name} {i}."},
}


def probability(name: str, template: str, question: str, answer: str, end: bool = True) -> float:
    model, tokenizer = load_model(name), build_tokenizer()
    row = encode_pair(tokenizer, resolve_template(tokenizer, template), question, answer)
    ids = torch.tensor([row["input_ids"]])
    with torch.no_grad():
        scores = torch.log_softmax(model(input_ids=ids).logits[0, :-1].double(), -1)
    found = [float(scores[place, label]) for place, label in enumerate(row["labels"][1:]) if label != -100]
    found = found if end else found[:-1]
    return math.exp(sum(found) / len(found))


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("lora", [False, True])
def test_both_sides_by_the_template_of_the_run(
    unlearn: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, lora: bool
) -> None:
    for name, count in (("forget", 4), ("retain", 4)):
        write_rows(tmp_path / f"{name}.jsonl", [ROWS[kind](i, name) for i in range(count)])
    files = {f"{name}_file": str(tmp_path / f"{name}.jsonl") for name in ("forget", "retain")}
    template = "auto" if kind == "text" else "llama2"
    assert unlearn(*QUICK, "--template", template, *(["--use_lora"] if lora else []), **files) == 0
    capsys.readouterr()
    run = str(tmp_path / "run")
    assert main(["ask", run, "Who is author 1?", "--answer", "It is forget 1.", "--max_new_tokens", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Who is author 1?"
    assert lines[1].split() == ["before", "|", "after"]
    labels = [line.split()[0] for line in lines if line[:1].strip()]
    for label in ("greedy", "sampled", "probability"):
        assert label in labels
    shown = next(line for line in lines if line.startswith("probability"))
    told = [float(cell.split()[0]) for cell in shown.removeprefix("probability").split("|")]
    used = "completion" if kind == "text" else "llama2"
    wanted = [
        probability(name, used, "Who is author 1?", "It is forget 1.", kind != "text") for name in ("model", run)
    ]
    assert told == pytest.approx(wanted, rel=0.01)
    assert told[0] != told[1]


def test_a_plain_model_alone_or_beside_another(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    few = ["--samples", "0", "--max_new_tokens", "3"]
    assert main(["ask", "model", "Who?", *few]) == 0
    out = capsys.readouterr().out
    assert "before" not in out
    assert "answer" in out
    assert "probability" not in out
    monkeypatch.setenv("COLUMNS", "40")  # too narrow for two columns
    assert main(["ask", "model", "Who?", "--before", "model", *few]) == 0
    out = capsys.readouterr().out
    assert "|" not in out
    before, after = out.partition("before")[2].split("after")
    assert before.split() == after.split()


def test_lines_of_a_pipe_until_its_end(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    turns = json.dumps([{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}])
    monkeypatch.setattr("sys.stdin", io.StringIO(f"Who is author 1?\tIt is 1.\n\nWhere?\n{turns}"))
    assert main(["ask", "model", "--samples", "1", "--max_new_tokens", "3"]) == 0
    first, second, third = capsys.readouterr().out.split("\n\n")
    assert first.startswith("Who is author 1?\n")
    assert "a token" in first
    assert second.startswith("Where?\n")
    assert "a token" not in second
    assert third.startswith("[{")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "run: none is named"),
        (["./absent", "Who?"], "run: './absent' is not there"),
        (["model", "Who", "is"], "question: 'is' follows it; put the question into quotes."),
        (["model", " "], "question: it is empty"),
        (["model", "Who?", "--answer", " "], "answer: it is empty"),
        (["model", "--answer", "Ada"], "answer: it belongs to one question"),
        (["model", "Who?", "--before", "./absent"], "before: './absent' is not there"),
        (["model", "Who?", "--samples", "-1"], "samples: -1 is negative"),
        (["model", "Who?", "--temperature", "0"], "temperature: 0"),
        (["model", "Who?", "--max_new_tokens", "0"], "max_new_tokens: 0"),
        (["model", "Who?", "--template", "chat"], "template: 'chat' needs a tokenizer with a chat template"),
        (["model", "Who?", "--answr", "Ada"], "answr: unknown; did you mean answer?"),
        (["model", "[{1"], "question: '[{1' is no conversation in JSON"),
        (["moved", "Who?"], "--before names the model that the run began with."),
        (["broken", "Who?"], "not a record of a run"),
    ],
)
def test_bad_input_is_one_line(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(workplace)
    for name, text in (
        ("moved", json.dumps({"verb": "unlearn", "configuration": {"model_name_or_path": "./gone"}})),
        ("broken", "{"),
    ):
        (workplace / name).mkdir(exist_ok=True)
        (workplace / name / "run.json").write_text(text)
        for file in (workplace / "model").iterdir():
            (workplace / name / file.name).write_bytes(file.read_bytes())
    assert main(["ask", *words]) == BAD_INPUT
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
