"""Tiny models of the kinds that decoding in slots must know: windows, soft caps, learned positions, an adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peft import LoraConfig, get_peft_model
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.tiny_models import build_model

SIZES: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def loud(model: Any) -> Any:
    """Larger weights, so that the likeliest token is no near tie."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(4.0)
    return model.eval()


def mistral() -> Any:
    return loud(MistralForCausalLM(MistralConfig(**SIZES, sliding_window=6)))


def qwen() -> Any:
    return loud(Qwen3ForCausalLM(Qwen3Config(**SIZES, attn_implementation="eager")))


def gpt2() -> Any:
    return loud(GPT2LMHeadModel(GPT2Config(vocab_size=400, n_embd=32, n_layer=2, n_head=4, n_positions=128)))


def gemma2() -> Any:
    options = {**SIZES, "attn_logit_softcapping": 0.1, "query_pre_attn_scalar": 1, "attn_implementation": "eager"}
    return loud(Gemma2ForCausalLM(Gemma2Config(**options)))


def adapter() -> Any:
    model = get_peft_model(build_model(), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    return model.eval()


MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: build_model().eval(),
    "mistral": mistral,
    "qwen": qwen,
    "gpt2": gpt2,
    "adapter": adapter,
}
