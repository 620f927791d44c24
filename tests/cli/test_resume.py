"""A run is continued as it was, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import transformers

from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.benchmarks.parts import content_fingerprint
from unlearn_hf.cli.main import BAD_INPUT
from unlearn_hf.cli.verbs.unlearn import parse
from unlearn_hf.common.files import write_json
from unlearn_hf.models.weights import BaseModel
from unlearn_hf.training.checkpoints import finish_checkpoint

CASES: dict[str, tuple[list[str], dict[str, str | None], str]] = {
    "method": ([], {"method": "pdu"}, "resume: method: npo -> pdu"),
    "verb": ([], {"method": None, "verb": "finetune"}, "resume: verb: unlearn -> finetune"),
    "adapter": (["--use_lora"], {}, "resume: use_lora: False -> True"),
    "objective": (["--retain_loss", "kl"], {}, "resume: retain_loss: nll -> kl"),
    "strength": (["--beta", "0.7"], {}, "resume: beta: "),
    "tokens": (["--forget_tokens", "new_words"], {}, "resume: forget_tokens: answer -> new_words"),
    "level": (["--level_estimate", "batch"], {}, "resume: level_estimate: probe -> batch"),
    "fewer rows": (["--max_forget_rows", "4"], {}, "resume: max_forget_rows: None -> 4"),
    "rows held back": (["--held_back_rows", "2"], {}, "resume: held_back_rows: 4 -> 2"),
    "length": (["--max_length", "64"], {}, "resume: max_length: 512 -> 64"),
    "benchmark": (
        ["--benchmark", "tofu", "--source", "mini"],
        {"forget_file": None, "retain_file": None},
        "resume: benchmark: None -> tofu",
    ),
    "rows": ([], {"forget_file": "retain.jsonl"}, "resume: the forget rows are not those of the run"),
    "another model": (
        [],
        {"model_name_or_path": "other"},
        "resume: model_name_or_path: 'model' (files",
    ),
    "the same files elsewhere": ([], {"model_name_or_path": "moved"}, "a model was asked for"),
    "allowed": (
        ["--num_train_epochs", "2", "--save_strategy", "epoch", "--logging_steps", "1", "--learning_rate", "1e-6"],
        {"forget_file": "copy.jsonl"},
        "a model was asked for",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_may_change(
    case: str,
    unlearn: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def loaded(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("a model was asked for")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", loaded)
    Path("copy.jsonl").write_bytes(Path("forget.jsonl").read_bytes())
    shutil.copytree("model", "moved", dirs_exist_ok=True)
    build_model(seed=3).save_pretrained("other")
    build_tokenizer().save_pretrained("other")
    run = tmp_path / "run"
    words = ["--forget_file", "forget.jsonl", "--retain_file", "retain.jsonl", "--model_name_or_path", "model"]
    configuration = parse([*words, "--method", "npo", "--output_dir", str(run), "--use_cpu"]).configuration()
    configuration["held_back_rows"] = 4  # as chosen for so many rows
    rows = [json.loads(line) for line in Path("forget.jsonl").read_text().splitlines()]
    data = {"trained_on": {"forget": {"rows": len(rows), "sha256": content_fingerprint(rows)}}}
    write_json(
        run / "run.json",
        {"verb": "unlearn", "configuration": configuration, "data": data, "model": asdict(BaseModel.named("model"))},
    )
    write_json(run / "checkpoint-2" / "trainer_state.json", {})
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "method_state.pt"):
        (run / "checkpoint-2" / name).touch()
    finish_checkpoint(run / "checkpoint-2")
    words, replaced, message = CASES[case]
    assert unlearn(*words, "--resume", **replaced) == BAD_INPUT
    assert message in capsys.readouterr().err
