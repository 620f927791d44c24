"""What is wrong with the parameters of objectives is told before a model is loaded: the one named here is a stub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from safetensors.torch import save_file

from tests.small_runs import rows
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.data.alternatives import alternative_rows, read_refusals
from unlearn_hf.methods import GradDiffConfig, GradDiffTrainer

QUESTIONS = Dataset.from_list([{"question": f"Who is {i}?", "answer": f"It is {i}."} for i in range(4)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forget_loss": "dpo", "refusal_file": "absent.txt"}, "refusal_file: 'absent.txt' is not there"),
        ({"forget_loss": "idk", "refusal_file": "empty.txt"}, "refusal_file: 'empty.txt' is empty"),
        ({"forget_loss": "idk", "refusal_file": "binary.txt"}, "refusal_file: 'binary.txt' is not text"),
        ({"refusal_file": "good.txt"}, "refusal_file: 'good.txt' has no meaning for forget_loss 'ga'"),
        ({"alternative_column": "other"}, "alternative_column: 'other' has no meaning for forget_loss 'ga'"),
        (
            {"forget_loss": "dpo", "refusal_file": "good.txt", "alternative_column": "other"},
            "refusal_file: it and alternative_column exclude each other",
        ),
        (
            {"forget_loss": "npo", "strength": 3.0},
            "strength: 3.0 has no meaning for forget_loss 'npo' and retain_loss 'nll'; undial has it",
        ),
        ({"layer": 3}, "layer: 3 has no meaning for forget_loss 'ga' and retain_loss 'nll'; rmu and hidden has it"),
        ({"forget_loss": "dpo", "beta": -1.0}, "beta: -1.0 is not positive"),
        ({"forget_loss": "undial", "strength": 0.0}, "strength: 0.0 is not positive"),
        ({"forget_loss": "wga", "weight_exponent": 0.0}, "weight_exponent: 0.0 is not positive"),
        ({"forget_loss": "satimp", "importance": -1.0}, "importance: -1.0 is negative"),
        ({"forget_loss": "rmu", "steering_coefficient": 0.0}, "steering_coefficient: 0.0 is not positive"),
    ],
)
def test_options(options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.txt").write_text("No idea.\n")
    Path("empty.txt").write_text(" \n\n")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=f"^{message}"):
        GradDiffConfig(output_dir=str(tmp_path), use_cpu=True, **options)


@pytest.mark.parametrize("layer", [-1, 2])
@pytest.mark.parametrize("adapter", [False, True])
def test_a_layer_that_does_not_exist(layer: int, adapter: bool, tmp_path: Path) -> None:
    """The folder has a configuration and weights without a tensor, so nothing could be loaded from it."""
    build_model().config.save_pretrained(tmp_path / "model")
    save_file({}, tmp_path / "model" / "model.safetensors")
    name = tmp_path / "model"
    if adapter:
        name = tmp_path / "adapter"
        name.mkdir()
        save_file({}, name / "adapter_model.safetensors")
        (name / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "model")}))
    args = GradDiffConfig(
        output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=4, forget_loss="rmu", layer=layer
    )
    with pytest.raises(ValueError, match=f"^layer: {layer} does not exist; the model has 2 layers, 0 to 1"):
        GradDiffTrainer(str(name), args, rows(4, 1), rows(4, 2), processing_class=build_tokenizer())


def test_a_module_pattern_that_matches_nothing(tmp_path: Path) -> None:
    args = GradDiffConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        per_device_train_batch_size=4,
        forget_loss="rmu",
        layer=1,
        trainable_parameters=[r"layers\.7\.mlp"],
    )
    with pytest.raises(ValueError, match=r"^trainable_parameters: .* matches none of the 21 parameters"):
        GradDiffTrainer(build_model(), args, rows(4, 1), rows(4, 2), processing_class=build_tokenizer())


@pytest.mark.parametrize(
    ("forget", "column", "message"),
    [
        (Dataset.from_dict({"text": ["a", "b"]}), None, "forget_dataset: rows of raw text have no question"),
        (QUESTIONS, "absent", "alternative_column: the forget rows have no 'absent', but question, answer"),
        (
            QUESTIONS.add_column("other", ["x", "", "y", "z"]),
            "other",
            "alternative_column: 'other' of forget row 1 is no text, or empty",
        ),
        (rows(4, 1), None, "forget_dataset: encoded rows need alternative_input_ids and alternative_labels"),
    ],
)
def test_rows(forget: Dataset, column: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        alternative_rows(forget, None, column)


def test_refusals_are_dealt_out_evenly_and_stay() -> None:
    own = read_refusals()
    assert len(own) == len(set(own)) >= 30
    many = Dataset.from_list([{"prompt": str(i), "completion": "x"} for i in range(2 * len(own))])
    found = alternative_rows(many, seed=1)
    assert found["prompt"][:] == many["prompt"][:]
    assert sorted(found["completion"][:]) == sorted(2 * own)
    assert found["completion"][:] == alternative_rows(many, seed=1)["completion"][:]
    assert found["completion"][:] != alternative_rows(many, seed=2)["completion"][:]


def test_columns_and_conversations() -> None:
    with_column = QUESTIONS.add_column("alternative", [f"Not {i}." for i in range(4)])
    assert alternative_rows(with_column)["answer"][:] == [f"Not {i}." for i in range(4)]
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    found = alternative_rows(Dataset.from_list([{"messages": turns, "other": "Nobody."}]), column="other")
    assert found["messages"][0] == [turns[0], {"role": "assistant", "content": "Nobody."}]
