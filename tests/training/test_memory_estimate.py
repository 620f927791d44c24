"""The estimate of memory: closed forms for what is held, and what autograd really keeps for activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.methods import METHODS
from unlearn_hf.models.wrappers import causal_model
from unlearn_hf.training.memory_estimate import activation_bytes, estimate_memory, largest_batch, model_without_weights

ROWS = [{"input_ids": [0] * length, "labels": [-100] * 4 + [0] * (length - 4)} for length in (9, 12, 7, 12)]


def arguments(method: str, folder: Path, **options: Any) -> Any:
    return METHODS[method].config_class(
        output_dir=str(folder), per_device_train_batch_size=2, use_cpu=True, report_to=[], **options
    )


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_those_that_autograd_keeps(tmp_path: Path, lora: bool, checkpointing: bool) -> None:
    model: Any = build_model(dropout=0.0)
    if lora:
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    args = arguments("graddiff", tmp_path, activation_checkpointing=checkpointing)
    told = activation_bytes(model, args, (2, 12))
    decoder = causal_model(model).get_decoder()  # type: ignore[union-attr, operator]
    own = {each.data_ptr() for each in (*decoder.parameters(), *decoder.buffers())}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        decoder.train()(input_ids=torch.zeros(2, 12, dtype=torch.long), use_cache=False)
    assert told == sum(each.untyped_storage().nbytes() for each in kept.values()) > 0


@pytest.mark.parametrize(
    ("method", "options", "gradients", "reference", "copies"),
    [
        ("graddiff", {}, 1, 0, 0),
        ("ngdiff", {}, 2, 0, 0),
        ("gru", {}, 2, 0, 1),
        ("task_vector", {}, 1, 0, 1),
        ("graddiff", {"retain_loss": "kl"}, 1, 0, 0),  # a file is smaller than a copy
        ("graddiff", {"retain_loss": "kl", "reference_device": "cpu"}, 1, 1, 0),
        ("npo", {"stop_when": "forget_prob < 0.1"}, 1, 0, 1),
        ("graddiff", {"log_gradient_geometry": "total"}, 2, 0, 0),
    ],
)
def test_what_is_held_follows_from_what_is_declared(
    tmp_path: Path, method: str, options: dict[str, Any], gradients: int, reference: int, copies: int
) -> None:
    model = build_model(vocab_size=20000)  # so that gradients and not activations make the peak
    size = 4 * sum(each.numel() for each in model.parameters())
    args = arguments(method, tmp_path, **options)
    found = estimate_memory(model, args, {"forget": ROWS, "retain": ROWS}, 3, METHODS[method])
    assert found.activations_known
    assert found.parts["optimizer"] == 2 * size
    assert found.parts["gradients"] == gradients * size
    assert found.parts.get("reference", 0) == reference * size
    assert found.on_cpu == found.parts.get("copies of trained weights", 0) == copies * size
    assert found.total == sum(found.parts.values())


@pytest.mark.parametrize("options", [{}, {"reference_device": "cpu"}])
def test_a_loss_on_hidden_states_ends_after_its_layer(tmp_path: Path, options: dict[str, Any]) -> None:
    """No gradient, no state of the optimizer, no activations, no logits and no copy of what lies above."""
    model = build_model()
    ending = {"forget_loss": "rmu", "retain_loss": "hidden", "layer": 0, **options}
    sets = {"forget": ROWS, "retain": ROWS}
    args = arguments("graddiff", tmp_path, packing="false", **ending)
    found = estimate_memory(model, args, sets, 3, METHODS["graddiff"])
    below = {id(each) for each in model.model.layers[1:].parameters()}
    size = 4 * sum(each.numel() for each in model.parameters() if id(each) not in below)
    assert found.parts["gradients"] == size
    assert found.parts["optimizer"] == 2 * size
    assert found.parts.get("reference", 0) == (size if options else 0)
    assert found.parts["activations"] == activation_bytes(model, args, (2, 12), layers=1)
    assert found.parts["activations"] < 0.7 * activation_bytes(model, args, (2, 12))  # type: ignore[operator]
    assert "logits and gradient of the head" not in found.parts
    args = arguments("graddiff", tmp_path, forget_loss="rmu", layer=0)
    both = estimate_memory(model, args, sets, 3, METHODS["graddiff"])  # the loss of the other set needs all of it
    assert both.parts["gradients"] == 4 * sum(each.numel() for each in model.parameters())


def test_the_largest_batch_is_padded_or_packed(tmp_path: Path) -> None:
    model = build_model()
    padded = arguments("graddiff", tmp_path, packing="false")
    assert largest_batch(ROWS, model, padded, 50) == ((2, 12), 16)
    packed = arguments("graddiff", tmp_path)
    different = [{**row, "input_ids": [index] * len(row["input_ids"])} for index, row in enumerate(ROWS)]
    assert largest_batch(different, model, packed, 50) == ((1, 24), 16)
    assert largest_batch(ROWS, model, packed, 50)[0][1] < 24  # a common beginning is there once


def test_a_model_without_weights_has_the_shapes_of_the_real_one(tmp_path: Path) -> None:
    build_model().save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    args = arguments("npo", tmp_path / "run")
    for adapter in (None, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")):
        model = model_without_weights(str(tmp_path / "model"), args, adapter)
        real: Any = build_model() if adapter is None else get_peft_model(build_model(), adapter)
        assert {name: (each.shape, each.requires_grad) for name, each in model.named_parameters()} == {
            name: (each.shape, each.requires_grad) for name, each in real.named_parameters()
        }
        assert all(each.is_meta for each in model.parameters())
