"""The passes that attacks by gradient norm and against another model need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from unlearn_hf.data.collator import collate
from unlearn_hf.data.labels import IGNORE_INDEX
from unlearn_hf.evaluation.engine import Engine
from unlearn_hf.evaluation.requests import SplitRequest
from unlearn_hf.evaluation.token_scores import ScoredText
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.likelihood.one_pass import PartialResults, evaluating, run_pass
from unlearn_hf.models.loading import load_model
from unlearn_hf.models.sharding import shards
from unlearn_hf.models.wrappers import without_wrappers


def gradient_norm(model: nn.Module, text: ScoredText, device: torch.device) -> float:
    """Mean, over parameter tensors, of the norm of the gradient of the mean NLL of one text.

    All floating-point parameters count, frozen ones too, so that the score does not depend on what is being trained.
    Neither `grad` nor `requires_grad` of any parameter is changed.

    Source:
        Wang et al. 2024, arXiv 2402.17012.
    """
    batch = collate([{"input_ids": text.input_ids, "labels": text.labels}], 0)
    with _all_differentiable(model) as parameters, torch.enable_grad():
        likelihood = answer_likelihood(model, {name: value.to(device) for name, value in batch.items()})
        loss = likelihood.nll.sum() / likelihood.tokens.sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    norms = [gradient.float().norm() for gradient in gradients if gradient is not None]
    return torch.stack(norms).double().mean().item()


@contextmanager
def _all_differentiable(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield parameters
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def gradient_norms(
    model: nn.Module,
    texts: Sequence[ScoredText],
    *,
    accelerator: Accelerator | None = None,
    partial: PartialResults | None = None,
) -> dict[str, float]:
    """`gradient_norm` of each text by key, one text at a time, shared out over ranks.

    Raises:
        ValueError: for a sharded model, whose gradients no rank has.
    """
    if shards(accelerator):
        raise ValueError(
            "attacks: gradient_norm needs gradients of single texts, which a sharded model (FSDP, DeepSpeed) does "
            "not have; evaluate the saved model with one process, or several under DDP."
        )
    device = accelerator.device if accelerator is not None else next(model.parameters()).device
    with evaluating(model):
        return run_pass(
            "gradient_norm",
            texts,
            lambda batch: [gradient_norm(model, text, device) for text in batch],
            batch_size=1,
            token_budget=1,
            accelerator=accelerator,
            partial=partial or PartialResults(None, ""),
            description="Gradient norms",
        )


def without_end(text: ScoredText) -> ScoredText:
    """The same text whose end of sequence is not scored."""
    return replace(text, labels=[*text.labels[:-1], IGNORE_INDEX]) if text.ends else text


def other_model(model: nn.Module | str, judged: nn.Module) -> nn.Module:
    """A model, or that of a hub id or folder, loaded with the precision, attention and device of the one judged."""
    if not isinstance(model, str):
        return model
    parameter = next(each for each in judged.parameters() if each.is_floating_point())
    attention = getattr(getattr(without_wrappers(judged), "config", None), "_attn_implementation", None)
    return load_model(model, str(parameter.dtype).removeprefix("torch."), False, attention).to(parameter.device)


def model_losses(
    model: nn.Module,
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[SplitRequest],
    accelerator: Accelerator | None = None,
) -> Mapping[tuple[str, int], float]:
    """Mean NLL of each answer in nats, by split and index.

    Args:
        model: a causal language model.
        engine: with the template and lengths of the evaluation.
        tokenizer: of both models; they must share it, since losses of other tokens cannot be compared.
        requests: the sets that are attacked.
        accelerator: shares the work out over its processes.
    """
    plain = [SplitRequest(request.split, request.rows, generated=False) for request in requests]
    table: Any = replace(engine, seconds={}).run(model, tokenizer, plain, accelerator=accelerator)
    return dict(zip(zip(table["split"], table["index"], strict=True), table["answer_mean_nll"], strict=True))
