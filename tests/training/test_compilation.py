"""`torch.compile`: the same result, and few compilations however many answer tokens a batch has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch._dynamo
from torch import nn
from torch._dynamo.utils import counters

from tests.small_runs import build_trainer, largest_difference, parameters, rows
from unlearn_hf.data.collator import collate
from unlearn_hf.likelihood.answers import answer_likelihood


@pytest.fixture(autouse=True)
def counted_anew() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Bigram(nn.Module):
    """The least that has a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(400, 8), nn.Linear(8, 400)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=self.head(self.embedding(input_ids)))


def test_number_of_answer_tokens_does_not_compile_anew() -> None:
    model, dataset = Bigram(), rows(24, 1)
    compiled = torch.compile(model, backend="eager")
    tokens = set()
    for start in range(0, 24, 3):
        batch = collate([dataset[start + offset] for offset in range(3)], pad_token_id=1)
        found, expected = answer_likelihood(compiled, batch), answer_likelihood(model, batch)
        torch.testing.assert_close(found.token_nll, expected.token_nll)
        tokens.add(len(found.token_nll))
    assert len(tokens) > 5
    # one for the first shapes, one when lengths turn out to vary, one for what varies only later
    assert 1 <= counters["stats"]["unique_graphs"] <= 3


@pytest.mark.slow
@pytest.mark.parametrize("case", ["ngdiff", "eupmu"])
def test_training_of_a_compiled_model(case: str, tmp_path: Path) -> None:
    options = {"max_steps": 6, "retain": 40}
    plain = build_trainer(case, tmp_path, **options)
    plain.train()
    compiled = build_trainer(case, tmp_path, torch_compile=True, torch_compile_backend="eager", **options)
    compiled.train()
    assert largest_difference(parameters(plain.model), parameters(compiled.model)) < 1e-6
    # with and without gradients, before and after the one break at the head, each as above
    assert 1 <= counters["stats"]["unique_graphs"] <= 7
    assert len(counters["graph_break"]) <= 1
