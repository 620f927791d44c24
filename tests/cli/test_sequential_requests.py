"""One request after the other: the model of a run is unlearned further, earlier requests are judged again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from datasets import concatenate_datasets

from tests.cli.own_rows import write_rows
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf import FinetuningConfig, FinetuningTrainer, NPOTrainer
from unlearn_hf.cli.main import BAD_INPUT, INTERRUPTED, main
from unlearn_hf.common.ledger import LEDGER, read_ledger
from unlearn_hf.data.encoding import encode_dataset
from unlearn_hf.data.row_checks import row_fingerprints
from unlearn_hf.data.templates import resolve_template

QUIET: dict[str, Any] = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no"}
OPTIONS = {"method": "npo", "learning_rate": "3e-3", "max_steps": "20", "stop_when": "none",
           "per_device_train_batch_size": "4", "weight_decay": "0", "lr_scheduler_type": "constant",
           "held_back_rows": "2", "verdict_samples": "1", "final_evaluation": "false", "use_cpu": "true",
           "disable_tqdm": "true", "save_strategy": "no", "report_to": "none"}  # fmt: skip
REQUESTS: dict[str, list[dict[str, Any]]] = {
    "first": [{"text": f"The river {x} runs north past Bergen and {700 + i} farms to the sea."}
              for i, x in enumerate("abc")],
    "second": [{"question": f"Who wrote book {x}?", "answer": f"Ada Moren {x} in {1900 + i}."}
               for i, x in enumerate("abc")],
    "third": [{"prompt": f"Where is hill {x}?", "completion": f"Near Tromso {x}, {300 + i} high."}
              for i, x in enumerate("abc")],
}  # fmt: skip
KEEP = [{"question": f"Where is town {x}?", "answer": f"It is in Oslo {x}."} for x in "efghijklmnop"]
LATER = [{"question": row["prompt"], "answer": row["completion"]} for row in REQUESTS["third"]]
KEPT = {"first": KEEP + REQUESTS["second"] + LATER, "second": KEEP + LATER, "third": KEEP}
CHAIN = ("first", "second", "third")


def request(name: str, *words: str, **options: str) -> int:
    """Forget the rows of `name.jsonl`, into the folder of that name."""
    files = {"forget_file": f"{name}.jsonl", "retain_file": f"{name}_keep.jsonl", "output_dir": name}
    given = {**OPTIONS, **files, **options}
    return main(["unlearn", *(word for option, value in given.items() for word in (f"--{option}", value)), *words])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that knows three requests, and the runs that forget them one after the other."""
    folder = tmp_path_factory.mktemp("requests")
    tokenizer = build_tokenizer()
    for name in CHAIN:
        write_rows(folder / f"{name}.jsonl", REQUESTS[name])
        write_rows(folder / f"{name}_keep.jsonl", KEPT[name])
    known = (*REQUESTS.values(), KEEP)
    rows = [encode_dataset(each, tokenizer, resolve_template(tokenizer)) for each in known]
    args = FinetuningConfig(
        str(folder / "target"), learning_rate=5e-3, num_train_epochs=50, per_device_train_batch_size=4, **QUIET
    )
    trainer = FinetuningTrainer(build_model(), args, concatenate_datasets(rows), processing_class=tokenizer)
    trainer.train()
    trainer.save_model()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert request("first", model_name_or_path="target") == 0
        assert request("second", continue_from="first") == 0
        assert request("third", continue_from="second") == 0
    return folder


@pytest.fixture
def chain(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy to work in, and the original out of the way: runs that were moved together find each other."""
    away = made.rename(made.with_name(f"{made.name}_away"))
    shutil.copytree(away, tmp_path / "chain")
    monkeypatch.chdir(tmp_path / "chain")
    yield tmp_path / "chain"
    away.rename(made)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", loaded)


def test_three_requests(made: Path) -> None:
    assert not (made / "first" / LEDGER).exists()
    second, third = read_ledger(made / "second"), read_ledger(made / "third")
    assert [entry.request for entry in third] == [*CHAIN]
    assert third[:2] == second  # append-only
    assert (made / "third" / LEDGER).read_text().startswith((made / "second" / LEDGER).read_text())
    assert [entry.parent for entry in third] == [None, str(made / "first"), str(made / "second")]
    for entry, name in zip(third, CHAIN, strict=True):
        assert entry.rows["fingerprints"] == row_fingerprints(REQUESTS[name])
        assert entry.verdict["forgotten"] == "yes"
        assert entry.verdict["known"] == 3
        assert json.loads((made / name / "verdict.json").read_text())["forgotten"] == entry.verdict["forgotten"]
    assert set(third[2].earlier) == {"first", "second"}
    assert all(each["known"] == 3 for each in third[2].earlier.values())
    text = (made / "third" / LEDGER).read_text()
    assert not any(word in text for word in ("Moren", "Tromso", "Bergen"))  # no text of rows


def edit(name: str, old: str, new: str) -> Callable[[], object]:
    """Replaces a text in a file, once."""
    return lambda: Path(name).write_text(Path(name).read_text().replace(old, new, 1))


NOTHING: Callable[[], object] = lambda: None  # noqa: E731
BAD: dict[str, tuple[Callable[[], object], dict[str, str], str]] = {
    "not there": (NOTHING, {"continue_from": "nowhere"}, "continue_from: 'nowhere' is not there"),
    "no run": (NOTHING, {"continue_from": "target"}, "continue_from: 'target' holds no run.json"),
    "another verb": (
        edit("first/run.json", '"verb": "unlearn"', '"verb": "finetune"'),
        {"continue_from": "first"},
        "'first' is a run of finetune, not of unlearn",
    ),
    "not finished": (
        edit("first/run.json", '"status": "finished"', '"status": "diverged"'),
        {"continue_from": "first"},
        "the run in 'first' has not finished (diverged)",
    ),
    "merged, adapter gone": (
        lambda: Path("target", "run.json").write_text(
            json.dumps({"verb": "merge", "configuration": {"model_name_or_path": "gone"}})
        ),
        {"continue_from": "target"},
        "'target' was merged from 'gone', which is not there",
    ),
    "parent missing": (
        lambda: shutil.rmtree("first"),
        {"continue_from": "third"},
        "ledger.jsonl, line 1: the run of request 'first'",
    ),
    "ledger missing": (lambda: Path("second", LEDGER).unlink(), {"continue_from": "second"}, "ledger.jsonl is gone"),
    "damaged line": (
        edit(f"third/{LEDGER}", '{"request": "second"', '{"request": '),
        {"continue_from": "third"},
        "ledger.jsonl, line 2: not JSON",
    ),
    "changed line": (
        edit(f"third/{LEDGER}", '"forgotten": "yes"', '"forgotten": "no"'),
        {"continue_from": "third"},
        "ledger.jsonl, line 2: it does not follow the line before",
    ),
    "lost field": (
        edit(f"third/{LEDGER}", '"method": "npo", ', ""),
        {"continue_from": "third"},
        "ledger.jsonl, line 1: it is no line of a ledger",
    ),
    "empty": (lambda: Path("third", LEDGER).write_text(""), {"continue_from": "third"}, "it is empty"),
    "other weights": (
        edit("third/config.json", "{", "{ "),
        {"continue_from": "third"},
        "the weights in 'third' are not those",
    ),
    "same request": (
        NOTHING,
        {"continue_from": "third", "forget_file": "second.jsonl"},
        "are those of the earlier request 'second'",
    ),
    "rows to keep": (
        NOTHING,
        {"continue_from": "second", "forget_file": "third.jsonl", "retain_file": "first_keep.jsonl"},
        "retain_dataset: 3 of 18 rows were to be forgotten by the earlier request 'second' (rows, from 0: 12, 13, 14)",
    ),
    "name taken": (
        NOTHING,
        {"continue_from": "second", "forget_file": "third.jsonl", "request_id": "first"},
        "request_id: 'first' is an earlier request",
    ),
    "two models": (
        NOTHING,
        {"continue_from": "third", "model_name_or_path": "target"},
        "continue_from: 'third' and model_name_or_path 'target' are two models",
    ),
    "repeats nothing": (
        NOTHING,
        {"model_name_or_path": "target", "allow_repeated_request": "true"},
        "allow_repeated_request: True needs a run to continue",
    ),
}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(
    case: str, chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, options, told = BAD[case]
    damage()
    files = {"forget_file": "third.jsonl", "retain_file": "third_keep.jsonl", "output_dir": "fourth"}
    there = sorted(chain.rglob("*"))
    assert request("fourth", **{**files, **options}) == BAD_INPUT
    error = capsys.readouterr().err.strip().splitlines()
    assert [line for line in error if line.startswith("error: ")] == error[-1:]
    assert told in error[-1]
    assert sorted(chain.rglob("*")) == there


@pytest.mark.usefixtures("chain")
def test_a_model_in_a_file_gives_way(capsys: pytest.CaptureFixture[str]) -> None:
    Path("model.yaml").write_text("model_name_or_path: target\n")
    assert request("third", "--config", "model.yaml", "--dry_run", continue_from="second", output_dir="dry") == 0
    assert "continue_from: the model is that of second, not target of model.yaml" in capsys.readouterr().out
    assert not Path("dry").exists()


def test_what_comes_back_is_told_and_what_cannot_be_read_is_not_measured(
    chain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(chain / "first.jsonl", REQUESTS["first"][:2])
    words = ["--fail_unless_forgotten", "--allow_overlap", "true"]
    options = {"continue_from": "second", "output_dir": "back", "max_steps": "60", "held_back_rows": "0"}
    write_rows(chain / "third_keep.jsonl", REQUESTS["second"] + KEEP[:1])  # learned again
    assert request("third", *words, **options) == 3
    *parents, entry = read_ledger(chain / "back")
    assert parents == read_ledger(chain / "second")
    assert entry.earlier["second"]["forgotten"] == "no"
    assert entry.earlier["second"]["leaking"] == 3
    assert entry.earlier["first"]["forgotten"] == "not_measured"
    printed = capsys.readouterr().out
    assert (
        "earlier request 'first' is not measured: its rows to forget (first.jsonl) are not those of then." in printed
    )
    assert "Earlier request 'second': forgotten: no. 3 of 3 rows" in printed


def test_a_killed_request_is_resumed_and_stands_in_the_ledger_once(
    chain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(100))

    def killed(*arguments: Any) -> Any:
        if next(steps) == 12:
            raise KeyboardInterrupt
        return training_step(*arguments)

    training_step = NPOTrainer.training_step
    options = {"continue_from": "second", "output_dir": "again", "save_strategy": "steps", "save_steps": "10"}
    with monkeypatch.context() as patch:
        patch.setattr(NPOTrainer, "training_step", killed)
        assert request("third", **options) == INTERRUPTED
    assert not (chain / "again" / LEDGER).exists()
    assert request("third", "--resume", **options) == 0
    found, uninterrupted = read_ledger(chain / "again"), read_ledger(chain / "third")
    assert len(found) == len(uninterrupted) == 3
    assert found[2].earlier == uninterrupted[2].earlier
    assert found[2].model == uninterrupted[2].model


def test_an_adapter_is_continued(chain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = {"max_steps": "2", "verdict_rows": "2"}
    first = {**quick, "model_name_or_path": "target", "output_dir": "one", "use_lora": "true", "request_id": "A 1"}
    assert request("first", **first) == 0
    assert request("second", "--use_lora", continue_from="one", output_dir="two", **quick) == BAD_INPUT
    assert "use_lora: 'one' is an adapter already" in capsys.readouterr().err
    assert request("second", continue_from="one", output_dir="two", **quick) == 0
    assert (chain / "two" / "adapter_config.json").is_file()
    assert [entry.request for entry in read_ledger(chain / "two")] == ["A 1", "two"]
    assert (chain / "one" / "adapter_model.safetensors").read_bytes() != (
        chain / "two" / "adapter_model.safetensors"
    ).read_bytes()
