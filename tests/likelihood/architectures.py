"""Small models of the architectures in use, and what their likelihoods should be."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 160

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-tied": {"tie_word_embeddings": True},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "phi3": {"pad_token_id": 0},
    "mistral": {"sliding_window": 6},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 6, "query_pre_attn_scalar": 8},
    "gemma3_text": {"head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 6, "query_pre_attn_scalar": 8},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0},
    "olmo2": {},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
    "opt": {"ffn_dim": 48, "dropout": 0.0, "word_embed_proj_dim": 32},
    "phi": {},
}


def build(name: str, seed: int = 0, **options: Any) -> nn.Module:
    """A small model of an architecture, with logits that are not all alike."""
    config = AutoConfig.for_model(
        name.removesuffix("-tied"),
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
            **ARCHITECTURES[name],
            **options,
        },
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(4.0)
    return model


def ragged_batch(seed: int = 0) -> dict[str, Tensor]:
    """Four padded rows with prompts of their own; two of one length, one without a prompt."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY, (4, 11), generator=generator)
    labels, mask = ids.clone(), torch.ones_like(ids)
    for row, (prompt, length) in enumerate([(3, 11), (5, 8), (0, 6), (2, 11)]):
        labels[row, :prompt] = labels[row, length:] = -100
        mask[row, length:] = 0
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def expected_nll(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """NLL per sequence from all logits."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    each = F.cross_entropy(logits[:, :-1].transpose(1, 2).float(), batch["labels"][:, 1:], reduction="none")
    return each.sum(-1)


def gradients(model: nn.Module, values: Tensor) -> dict[str, Tensor]:
    """Gradients of a weighted sum, so that sequences are told apart."""
    model.zero_grad()
    (values * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(value.abs().max().item(), 0.1)  # some are zero but for rounding
        assert (found[name] - value).abs().max().item() <= tolerance * scale, name
