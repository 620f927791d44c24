"""Selective activation checkpointing: the same parameters, less memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from torch import nn

from tests.methods.invariances import TOLERANCE, run
from tests.small_runs import build_trainer, largest_difference
from tests.tiny_models import build_model
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.methods import METHODS
from unlearn_hf.models.selective_checkpointing import enable_selective_checkpointing


@pytest.mark.parametrize("case", ["graddiff", "ngdiff", "eupmu"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_same_parameters(case: str, dropout: float, tmp_path: Path) -> None:
    kept = run(case, tmp_path, model=build_model(dropout=dropout))
    again = run(case, tmp_path, model=build_model(dropout=dropout), selective_checkpointing=True)
    assert largest_difference(kept, again) < TOLERANCE


def test_with_an_adapter(tmp_path: Path) -> None:
    found = []
    for selective in (False, True):
        torch.manual_seed(0)
        lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
        trainer = build_trainer("npo", tmp_path, peft_config=lora, selective_checkpointing=selective)
        trainer.train()
        found.append({name: each.detach() for name, each in trainer.model.named_parameters() if "lora" in name})
    assert largest_difference(*found) < TOLERANCE


def held_after_forward(model: nn.Module, folder: Path) -> int:
    """Bytes that a forward pass leaves for the backward pass."""
    ids = torch.randint(3, 300, (4, 64), generator=torch.Generator().manual_seed(0))
    labels = ids.masked_fill(torch.arange(64) < 60, -100)  # few, so that layers dominate and not logits
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        likelihood = answer_likelihood(model.train(), batch)
    assert likelihood.nll.requires_grad
    profile.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    return sum(event["args"]["Bytes"] for event in events if event.get("name") == "[memory]")


def test_half_the_memory_of_the_layers(tmp_path: Path) -> None:
    model = build_model()
    kept = held_after_forward(model, tmp_path)
    enable_selective_checkpointing(model)
    assert held_after_forward(model, tmp_path) < 0.7 * kept


def test_not_together_with_full_checkpointing(tmp_path: Path) -> None:
    config = METHODS["graddiff"].config_class
    with pytest.raises(ValueError, match="selective_checkpointing: True cannot go with activation_checkpointing"):
        config(output_dir=str(tmp_path), selective_checkpointing=True, activation_checkpointing=True)
