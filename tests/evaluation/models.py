"""Models that behave badly in a known way."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaForCausalLM


class _AlwaysEnd(torch.nn.Linear):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*hidden.shape[:-1], self.out_features)
        logits[..., 1] = 50.0
        return logits


def ends_at_once(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The same model with a head that ends every text at once."""
    model.set_output_embeddings(_AlwaysEnd(model.config.hidden_size, model.config.vocab_size))
    return model.eval()


class Interrupted:
    """Counts forward passes, and fails in the middle."""

    def __init__(self, model: LlamaForCausalLM, after: int | None) -> None:
        self.model, self.passes = model, 0

        def count(*_: Any) -> None:
            if self.passes == after:
                raise RuntimeError("power cut")
            self.passes += 1

        self.handle = model.register_forward_pre_hook(count)
