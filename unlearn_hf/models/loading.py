"""Models and tokenizers by name or as objects, in the precision that training needs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import is_flash_attn_2_available

from unlearn_hf.common.checks import ATTENTIONS, check_choice
from unlearn_hf.models.paths import check_model_path, check_tokenizer_path
from unlearn_hf.models.selective_checkpointing import enable_selective_checkpointing
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
    if (Path(name) / "adapter_config.json").exists():
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
    if not isinstance(model, (str, os.PathLike)):
        inner = causal_model(model)
        return layer_count(inner.config) if inner is not None else None
    return layer_count(model_configuration(os.fspath(model), trust_remote_code))


def configured_width(name: str, trust_remote_code: bool = False) -> int | None:
    """Size of the hidden states of a model given by name, by its configuration alone."""
    config = model_configuration(name, trust_remote_code).get_text_config()
    return getattr(config, "hidden_size", None) or getattr(config, "n_embd", None)


def model_configuration(name: str, trust_remote_code: bool) -> Any:
    """The configuration of a model, or of the one that an adapter belongs to."""
    check_model_path(name, trust_remote_code=trust_remote_code)
    adapter_config = Path(name) / "adapter_config.json"
    if adapter_config.exists():
        name = json.loads(adapter_config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    return AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)


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


def prepare_model(model: nn.Module, args: Any, peft_config: Any | None) -> nn.Module:
    """Add an adapter, choose what is trained, and raise what is trained to master precision.

    Args:
        model: a `PreTrainedModel` or `PeftModel`.
        args: a `FinetuningConfig`.
        peft_config: an adapter to add, or `None`.

    Raises:
        ValueError: when an adapter is to be added to a model that has one, a pattern matches no parameter, or nothing
            is left to train.
        TypeError: when `model` is no transformers or PEFT model.
    """
    is_peft = hasattr(model, "peft_config") and not isinstance(model, PreTrainedModel)
    if not isinstance(model, PreTrainedModel) and not is_peft:
        raise TypeError(
            f"model: {type(model).__name__} is neither a hub id, a path, a PreTrainedModel nor a PeftModel."
        )
    if peft_config is not None:
        if is_peft:
            raise ValueError("peft_config: the model already carries an adapter; pass one or the other.")
        from peft import get_peft_model

        try:
            model = get_peft_model(model, peft_config)
        except ValueError as problem:
            raise ValueError(f"peft_config: {_targets(model, peft_config)} ({problem})") from problem
    if args.trainable_parameters:
        select_trainable(model, args.trainable_parameters)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "model: none of its parameters is to be trained; an adapter loaded with PeftModel.from_pretrained needs "
            "is_trainable=True."
        )
    dtype = getattr(torch, args.trainable_dtype)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != dtype and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    if dtype != torch.float32 and not next(model.parameters()).is_meta:
        share = rounded_away(model, args.learning_rate)
        warnings.warn(
            f"trainable_dtype: with {args.trainable_dtype} weights and learning_rate {args.learning_rate:g}, about "
            f"{share:.0%} of the updates round to zero. Use float32 weights, and bf16 for compute only.",
            stacklevel=2,
        )
    if args.selective_checkpointing:
        enable_selective_checkpointing(model)
    return model


def _targets(model: nn.Module, peft_config: Any) -> str:
    """What an adapter asks for that the model has not, and the layers that there are."""
    wanted = getattr(peft_config, "target_modules", None) or "none"
    layers = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    shown = wanted if isinstance(wanted, str) else ", ".join(sorted(wanted))
    return (
        f"no adapter can be added for target_modules (--lora_target_modules) {shown}; the linear layers here are "
        f"{', '.join(sorted(layers)) or 'none'}, and all-linear takes all but the last"
    )


def select_trainable(model: nn.Module, patterns: list[str]) -> None:
    """Train only the parameters whose name matches one of the regular expressions (and could be trained before).

    Raises:
        ValueError: when a pattern is no regular expression or matches nothing.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    chosen: set[str] = set()
    for pattern in patterns:
        try:
            matches = {name for name in names if re.search(pattern, name)}
        except re.error as problem:
            raise ValueError(
                f"trainable_parameters: {pattern!r} is not a regular expression ({problem})."
            ) from problem
        if not matches:
            raise ValueError(
                f"trainable_parameters: {pattern!r} matches none of the {len(names)} parameters, such as {names[0]!r}."
            )
        chosen |= matches
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)


def rounded_away(model: nn.Module, update: float) -> float:
    """Share of trained weights that an Adam-sized update of magnitude `update` leaves unchanged by rounding.

    An update below half a unit in the last place of the weight is lost.
    """
    lost, total = 0, 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            unit = torch.finfo(parameter.dtype).eps * torch.exp2(
                torch.floor(torch.log2(parameter.detach().float().abs()))
            )
            lost += int((unit / 2 > update).sum())
            total += parameter.numel()
    return lost / max(total, 1)


def check_attention(name: str | None) -> None:
    """Raise a `ValueError` for an unknown attention, or one whose package is not installed."""
    if name is not None:
        check_choice("attn_implementation", name, ATTENTIONS)
    if name == "flash_attention_2" and not is_flash_attn_2_available():
        raise ValueError(
            "attn_implementation: 'flash_attention_2' needs a GPU and flash-attn, which are not there; use 'sdpa'."
        )
