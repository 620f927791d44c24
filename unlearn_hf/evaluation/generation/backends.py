"""The choice of a backend, and the continuations it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from unlearn_hf.evaluation.generation.decoding import Decoder
from unlearn_hf.evaluation.generation.padded_batches import decoded_rows, generate_batch, transformers_settings
from unlearn_hf.evaluation.generation.prompts import GeneratedText, end_tokens
from unlearn_hf.evaluation.generation.slots import generate_in_slots
from unlearn_hf.models.wrappers import causal_model


def choose_backend(name: str, model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[GeneratedText],
                   device: torch.device, sharded: bool = False) -> str:  # fmt: skip
    """The backend that is used.

    Args:
        name: one of `checks.GENERATION_BACKENDS`. `auto` takes `slots` on a CPU, where it wins, unless the model's
            architecture does not agree with it on a trial; `transformers` elsewhere.
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: what is continued; one of them is the trial.
        device: of the model.
        sharded: whether ranks hold parts of the model.

    Raises:
        ValueError: when what is asked for cannot be had.
    """
    if name == "transformers" or not prompts or (name == "auto" and (sharded or device.type != "cpu")):
        return "transformers"
    reason = "the model is sharded" if sharded else None
    if name in ("vllm", "transformers_continuous"):
        if reason is None and prompts[0].settings.max_length is not None:
            reason = "it has no padding, which protocol 'official' counts"
        if reason is None and name != "vllm" and getattr(model.config, "attn_logit_softcapping", None):
            reason = "its attention leaves out soft caps (attn_logit_softcapping)"
        if reason is not None:
            raise ValueError(f"generation_backend: {name!r} is not possible, {reason}; use 'auto'.")
        return name
    if reason is None and getattr(model.config, "_attn_implementation", None) not in ("sdpa", "eager"):
        reason = "its attention is neither sdpa nor eager"
    if reason is None:
        half = torch.is_autocast_enabled(device.type) or next(model.parameters()).dtype != torch.float32
        shortest = min(prompts, key=lambda prompt: prompt.length)
        if not Decoder(model, device, (), slots=1).agrees(shortest.input_ids, half):
            reason = f"{type(causal_model(model) or model).__name__} gives other likelihoods with it"
    if reason is None:
        return "slots"
    if name == "slots":
        raise ValueError(f"generation_backend: 'slots' is not possible, {reason}; use 'transformers'.")
    return "transformers"


def generate(
    backend: str,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[GeneratedText],
    device: torch.device,
    *,
    batch_size: int = 16,
    sharded: bool = False,
) -> Iterator[Any]:
    """Continue prompts, whatever the model's own sampling settings say.

    Args:
        backend: what `choose_backend` gave.
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: what to continue, all with the same settings.
        device: of the model.
        batch_size: prompts per batch of `transformers`, and those whose padding counts under `max_length`.
        sharded: whether every rank must go on until the last one is done.

    Returns:
        For each prompt, in order and as they are done, its continuation up to the end-of-sequence token without
        special tokens; a list of them for several samples.
    """
    if not prompts:
        return iter(())
    settings = prompts[0].settings
    if backend == "vllm":
        from unlearn_hf.evaluation.generation.vllm_engine import generate_by_vllm

        return generate_by_vllm(model, tokenizer, prompts, settings)
    if backend == "slots":
        return generate_in_slots(model, tokenizer, prompts, settings, device, batch_size)
    if backend == "transformers_continuous":
        from unlearn_hf.evaluation.generation.continuous_batching import continuous_tokens

        config = transformers_settings(model, tokenizer, settings, settings.max_new_tokens)
        rows = continuous_tokens(model, [prompt.input_ids for prompt in prompts], config, device)
        return decoded_rows(rows, tokenizer, end_tokens(tokenizer, model))
    batches = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    return (text for batch in batches for text in generate_batch(model, tokenizer, batch, settings, device, sharded))
