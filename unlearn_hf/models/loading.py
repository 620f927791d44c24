"""Models and tokenizers by name or as objects, and what a name says before anything is loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import is_flash_attn_2_available

from unlearn_hf.common.checks import ATTENTIONS, check_choice
from unlearn_hf.models.paths import base_name, check_model_path, check_tokenizer_path, is_adapter
from unlearn_hf.models.whp import WHPForCausalLM, WHPModelConfig
from unlearn_hf.models.wrappers import causal_model, layer_count

# So that it is loaded by the code here, and not by the copy that lies beside its weights.
AutoConfig.register(WHPModelConfig.model_type, WHPModelConfig, exist_ok=True)
AutoModelForCausalLM.register(WHPModelConfig, WHPForCausalLM, exist_ok=True)


def load_tokenizer(
    name: str, trust_remote_code: bool = False, field: str = "tokenizer_name_or_path"
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `name` (a hub id or a folder).

    Raises:
        ValueError: naming `field`, when it is not there, or is broken.
    """
    check_tokenizer_path(name, field)
    with _naming(field, name, "its tokenizer"):
        return AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)


def load_model(
    name: str,
    dtype: str = "float32",
    trainable_adapter: bool = True,
    attention: str | None = None,
    trust_remote_code: bool = False,
    field: str = "model_name_or_path",
    load_in_4bit: bool = False,
) -> nn.Module:
    """Load a causal language model, or a base model with the adapter in the folder `name`.

    Args:
        name: a hub id, a folder with a model, or a folder with an adapter.
        dtype: precision of the weights (`auto`: as they were saved).
        trainable_adapter: whether an adapter is loaded to be trained further.
        attention: implementation of attention (`attn_implementation` of transformers); by default its choice.
        trust_remote_code: whether code that comes with the model may be run.
        field: the option that named it, for errors.
        load_in_4bit: hold linear layers but the head in 4 bit (NF4, doubly quantised), computing in `dtype`.

    Raises:
        ValueError: naming `field`, when it is not there, broken, no causal language model, or lacks weights.
    """
    check_model_path(name, field, trust_remote_code)
    options: dict[str, Any] = {
        "dtype": dtype if dtype == "auto" else getattr(torch, dtype),
        "attn_implementation": attention,
        "trust_remote_code": trust_remote_code,
    }
    if load_in_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32 if dtype == "auto" else options["dtype"],
        )
    if is_adapter(name):
        from peft import AutoPeftModelForCausalLM

        with _naming(field, name, "the adapter or its base model"):
            model = AutoPeftModelForCausalLM.from_pretrained(name, is_trainable=trainable_adapter, **options)
    else:
        with _naming(field, name, "it"):
            loaded: Any = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **options)
        model, report = loaded
        if missing := sorted(report["missing_keys"]):
            raise ValueError(
                f"{field}: {name!r} lacks {len(missing)} weights of {type(model).__name__}, such as {missing[0]}, "
                "which would be random; name a causal language model that was saved whole."
            )
    check_causal(model, field)
    if load_in_4bit:
        _keep_layout(model)
    return model


def _keep_layout(model: nn.Module) -> None:
    """Forbid bitsandbytes to pack 4-bit weights anew for a CPU with AVX512-BF16 at the first pass without gradients.

    Its kernel for that layout has no backward pass, so training after any evaluation would silently lose the gradient
    that flows through quantised layers; and it cannot pack layers whose input is no multiple of 64.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextlib.contextmanager
def _naming(field: str, name: str, what: str) -> Iterator[None]:
    """Say which option named what a library cannot load."""
    try:
        yield
    except (ValueError, OSError, KeyError, RuntimeError, SafetensorError) as problem:
        if isinstance(problem, torch.OutOfMemoryError):
            raise
        first = str(problem).strip().partition("\n")[0]
        raise ValueError(
            f"{field}: {what} cannot be loaded from {name!r} ({type(problem).__name__}: {first}); check the folder, "
            "or save the model again."
        ) from problem


def check_causal(model: nn.Module, field: str = "model") -> None:
    """Refuse encoders: every answer token would see those that follow it.

    Raises:
        ValueError: naming `field`.
    """
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if encoder or getattr(config, "is_encoder_decoder", False):
        what = "an encoder" if encoder else "an encoder and a decoder"
        raise ValueError(
            f"{field}: {type(model).__name__} ({kind}) is {what}; only causal language models, which write from left "
            "to right, can be trained and judged here."
        )


def check_vocabulary(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer whose tokens the model has no embeddings for.

    Raises:
        ValueError: naming `processing_class`.
    """
    rows = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= rows:
        raise ValueError(
            f"processing_class: the tokenizer has ids up to {highest}, and the model embeddings for {rows}; use the "
            "model's own tokenizer, or call model.resize_token_embeddings(len(tokenizer)) and save both."
        )


def configured_layers(model: Any, trust_remote_code: bool = False) -> int | None:
    """How many layers a model has, by its configuration alone; `None` where that does not say."""
    config = configuration_of(model, trust_remote_code)
    return layer_count(config) if config is not None else None


def configured_width(model: Any, trust_remote_code: bool = False) -> int | None:
    """Size of the hidden states of a model, by its configuration alone; `None` where that does not say."""
    config = configuration_of(model, trust_remote_code)
    text = config.get_text_config() if config is not None else None
    return getattr(text, "hidden_size", None) or getattr(text, "n_embd", None)


def configuration_of(model: Any, trust_remote_code: bool = False) -> Any:
    """The configuration of a model or of what a name stands for; `None` for a model unlike those of transformers."""
    if isinstance(model, (str, os.PathLike)):
        return model_configuration(os.fspath(model), trust_remote_code)
    return getattr(causal_model(model), "config", None)


def model_configuration(name: str, trust_remote_code: bool) -> Any:
    """The configuration of a model, or of the one that an adapter belongs to."""
    check_model_path(name, trust_remote_code=trust_remote_code)
    return AutoConfig.from_pretrained(base_name(name), trust_remote_code=trust_remote_code)


def tokenizer_for(model: str | nn.Module, tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase:
    """Return `tokenizer`, or the one that belongs to `model`.

    Raises:
        ValueError: when no tokenizer is given and the model does not say where it came from.
    """
    if tokenizer is not None:
        return tokenizer
    name = model if isinstance(model, str) else getattr(getattr(model, "config", None), "_name_or_path", "")
    if not name:
        raise ValueError("processing_class: the model does not say where it was loaded from; pass its tokenizer.")
    return load_tokenizer(name, field="processing_class")


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills up batches: the pad token's, else the end-of-sequence token's, else 0 (it is masked out)."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def check_attention(name: str | None) -> None:
    """Raise a `ValueError` for an unknown attention, or one whose package is not installed."""
    if name is not None:
        check_choice("attn_implementation", name, ATTENTIONS)
    if name == "flash_attention_2" and not is_flash_attn_2_available():
        raise ValueError(
            "attn_implementation: 'flash_attention_2' needs a GPU and flash-attn, which are not there; use 'sdpa'."
        )


def check_four_bit_model(model: Any, peft_config: Any | None) -> None:
    """Refuse to quantise what is loaded already, or weights that would be trained themselves.

    Raises:
        ValueError: naming `load_in_4bit`.
    """
    if not isinstance(model, str):
        raise ValueError(
            f"load_in_4bit: True loads a model by name, and this {type(model).__name__} is loaded already; pass its "
            "name, or a model that is quantised, and leave it out."
        )
    if peft_config is None and not is_adapter(model):
        raise ValueError(
            "load_in_4bit: True needs an adapter, because weights in 4 bit cannot be trained; add --use_lora "
            "(peft_config), or leave it out."
        )
