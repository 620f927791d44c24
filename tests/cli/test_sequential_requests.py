"""One request after the other: the model of a run is unlearned further, earlier requests are judged again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from datasets import concatenate_datasets

from tests.cli.own_rows import write_rows
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf import FinetuningConfig, FinetuningTrainer
from unlearn_hf.cli.main import BAD_INPUT, main
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
def chain(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in, where no model can be loaded."""
    folder = tmp_path / "chain"
    shutil.copytree(made, folder)
    for path in folder.glob("*/run.json"):  # the runs were elsewhere
        path.write_text(path.read_text().replace(str(made), str(folder)))
    monkeypatch.chdir(folder)
    return folder


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
