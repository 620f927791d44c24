"""Models that cannot be unlearned and values that cannot be had: one line that names field, value and mend."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.cli.main import BAD_INPUT, main

Unlearn = Callable[..., int]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What was written to standard error: no traceback, and each problem on a line of its own."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


def altered(source: Path, target: Path, change: Callable[[Path], Any]) -> str:
    """A copy of a model folder with something wrong in it."""
    shutil.copytree(source, target)
    change(target)
    return str(target)


def cut(file: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-100])


def without(*patterns: str) -> Callable[[Path], Any]:
    return lambda folder: [each.unlink() for pattern in patterns for each in folder.glob(pattern)]


def written(file: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_text(text)


REMOTE = '{"model_type": "never_seen", "auto_map": {"AutoModelForCausalLM": "modeling.Model"}}'
FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated weights": (cut("model.safetensors"), "model.safetensors"),
    "no weights": (without("*.safetensors"), "weights"),
    "half a configuration": (written("config.json", '{"model_type": '), "config.json"),
    "a list for a configuration": (written("config.json", "[1]"), "config.json"),
    "no configuration": (without("config.json"), "config.json"),
    "an unknown type": (written("config.json", '{"model_type": "nonesuch"}'), "nonesuch"),
    "remote code": (written("config.json", REMOTE), "--trust_remote_code"),
    "no tokenizer": (without("tokenizer*", "special*"), "tokenizer"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_broken_model_folder(
    name: str, workplace: Path, unlearn: Unlearn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, wanted = FOLDERS[name]
    folder = altered(workplace / "model", tmp_path / "broken", change)
    assert unlearn(model_name_or_path=folder) == BAD_INPUT
    text = told(capsys)
    assert wanted in text
    assert folder in text
    assert not (tmp_path / "run").exists()


def test_models_of_another_kind(unlearn: Unlearn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small: dict[str, Any] = {"vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(**small, intermediate_size=16)).save_pretrained(tmp_path / "encoder")
    T5ForConditionalGeneration(T5Config(vocab_size=400, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)) \
        .save_pretrained(tmp_path / "t5")  # fmt: skip
    for kind in ("encoder", "t5"):
        build_tokenizer().save_pretrained(tmp_path / kind)
        assert unlearn(model_name_or_path=str(tmp_path / kind)) == BAD_INPUT
        assert "causal" in told(capsys)


def test_a_tokenizer_larger_than_the_embedding(
    unlearn: Unlearn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_model(vocab_size=100).save_pretrained(tmp_path / "small")
    build_tokenizer().save_pretrained(tmp_path / "small")
    assert unlearn(model_name_or_path=str(tmp_path / "small")) == BAD_INPUT
    text = told(capsys)
    assert "100" in text
    assert "tokenizer" in text


def test_a_tokenizer_without_end_of_text_warns(unlearn: Unlearn, tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.eos_token = None
    build_model().save_pretrained(tmp_path / "endless")
    tokenizer.save_pretrained(tmp_path / "endless")
    with pytest.warns(UserWarning, match="end"):
        assert unlearn("--max_steps", "1", model_name_or_path=str(tmp_path / "endless")) == 0


VALUES: dict[str, tuple[tuple[str, ...], str]] = {
    "a rate of zero": (("--learning_rate", "0"), "learning_rate: 0"),
    "half precision on a CPU": (("--fp16", "true"), "fp16: True"),
    "an unknown tracker": (("--report_to", "nothing_like_it"), "report_to: 'nothing_like_it'"),
    "a tracker that is not installed": (("--report_to", "comet_ml"), "report_to: 'comet_ml'"),
    "a layer that is not there": (("--use_lora", "--lora_target_modules", "query"), "q_proj"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_cannot_be_had(
    name: str, unlearn: Unlearn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, wanted = VALUES[name]
    assert unlearn(*words) == BAD_INPUT
    assert wanted in told(capsys)


def test_files_that_no_program_should_read_whole(
    unlearn: Unlearn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "abcdefghi"
    lines = [f"a: &a [{', '.join(['x'] * 9)}]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in itertools.pairwise(names)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    assert main(["unlearn", "--config", str(tmp_path / "bomb.yaml")]) == BAD_INPUT
    text = told(capsys)
    assert "bomb.yaml" in text
    assert len(text) < 2000
    (tmp_path / "half.jsonl").write_text('{"question": "a\\ud800", "answer": "b"}\n')
    assert unlearn(forget_file=str(tmp_path / "half.jsonl")) == BAD_INPUT
    text = told(capsys)
    assert "half.jsonl" in text
    assert "line 1" in text
    (tmp_path / "file").touch()
    assert unlearn(output_dir=str(tmp_path / "file" / "run")) == BAD_INPUT
    assert "output_dir" in told(capsys)
