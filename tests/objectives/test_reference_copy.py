"""A frozen copy of the model before unlearning holds no more than is needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.small_runs import rows
from tests.tiny_models import build_model
from unlearn_hf.data.collator import collate
from unlearn_hf.models.trained_parameters import select_trainable
from unlearn_hf.reference.model_before import ReferenceModel


@pytest.mark.parametrize("layers", [None, 1])
@pytest.mark.parametrize("patterns", [None, [r"layers\.0\.mlp\.down_proj"]])
def test_size_and_values(layers: int | None, patterns: list[str] | None) -> None:
    model: Any = build_model()
    if patterns:
        select_trainable(model, patterns)
    batch = collate(list(rows(4, 1)), pad_token_id=1)
    before = ReferenceModel(model, layers=layers)
    above = sum(p.nbytes for p in model.model.layers[1].parameters())
    everything = sum(p.nbytes for p in model.parameters())
    expected = everything - (above if layers else 0)
    if patterns:
        expected = model.model.layers[0].mlp.down_proj.weight.nbytes
    assert before.copied == expected
    hidden = before.hidden(model, batch, layer=0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == (1 if patterns else 21)
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.1)
    assert torch.equal(before.hidden(model, batch, layer=0), hidden)
    assert not torch.equal(ReferenceModel(model).hidden(model, batch, layer=0), hidden)
    assert model.config.num_hidden_layers == len(model.model.layers) == 2
