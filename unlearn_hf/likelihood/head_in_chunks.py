"""The head on chunks of hidden states, so that few logits exist at once, and what is read from its logits."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPast

from unlearn_hf.likelihood import in_place_losses
from unlearn_hf.likelihood.answer_request import AnswerOutput, AnswerRequest

LARGEST_LOGITS = {"cpu": 2**25, "cuda": 2**28}
"""Most elements of the logits that exist at once, in float32 128 MiB on the CPU and 1 GiB on a GPU, where many small
products cost more; above it the head runs in chunks."""


class _Hidden(BaseModelOutputWithPast):
    """Outputs of a decoder that has nothing but hidden states; whatever else is asked for is `None`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


class _GivenHidden(nn.Module):
    """Stands in for the decoder and returns hidden states that are there already."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.__dict__["hidden"] = hidden

    @property
    def decoder(self) -> _GivenHidden:
        """Some architectures call `model.decoder`."""
        return self

    def forward(self, *args: Any, **kwargs: Any) -> _Hidden:
        """The hidden states."""
        return _Hidden(last_hidden_state=self.__dict__["hidden"])


def logits_of_hidden(model: nn.Module, hidden: Tensor) -> Tensor:
    """Logits `[n, V]` in float32 of hidden states `[n, H]`, by the architecture's own code.

    Args:
        model: see `causal_model`.
        hidden: what its decoder returned at some positions.
    """
    # The same module with another decoder: head, configuration and hooks are shared, nothing is copied.
    tail = object.__new__(type(model))
    tail.__dict__.update(model.__dict__)
    tail.__dict__.pop("forward", None)  # an instance's own forward is bound to the instance
    tail.__dict__["_modules"] = {**model._modules, str(model.base_model_prefix): _GivenHidden(hidden.unsqueeze(0))}
    output = type(model).forward(tail, input_ids=None, use_cache=False)
    return _precise(output.logits.squeeze(0))


def _precise(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values if values.dtype == torch.float64 else values.float()


@torch.compiler.disable
def answer_in_chunks(model: nn.Module, chosen: Tensor, request: AnswerRequest, count: int) -> AnswerOutput:
    """Score `[N, H]` hidden states, `count` at a time."""

    def score(part: Tensor, start: int) -> tuple[Tensor, dict[str, Tensor]]:
        return _score(logits_of_hidden(model, part), request, start, start + len(part))

    parts = []
    for start in range(0, len(chosen), count):
        part = chosen[start : start + count]
        if torch.is_grad_enabled():
            parts.append(checkpoint(score, part, start, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(score(part, start))
    values = {name: torch.cat([each[name] for _, each in parts]) for name in parts[0][1]}
    return AnswerOutput(token_nll=torch.cat([nll for nll, _ in parts]), token_values=values)


def _score(logits: Tensor, request: AnswerRequest, start: int, stop: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Likelihoods and further values of tokens `start` to `stop`, from their logits."""
    assert request.targets is not None
    targets = request.targets[start:stop]
    if request.token_function is not None:
        # before the function, which may write its gradient over the logits
        nll = logits.new_full((len(logits),), torch.nan)  # what nobody asked for
        if request.nll:
            nll = F.cross_entropy(logits.detach(), targets, reduction="none")
        return nll, request.token_function(logits, targets, start)
    if request.keep_logits:
        return F.cross_entropy(logits, targets, reduction="none"), {}
    return in_place_losses.cross_entropy(logits, targets), {}


@torch.compiler.disable
def answer_of_logits(logits: Tensor, request: AnswerRequest) -> AnswerOutput:
    """Score logits that exist, `[N, V]`."""
    logits = _precise(logits)
    output = AnswerOutput(logits=logits if request.keep_logits else None)
    if request.targets is not None:
        output.token_nll, output.token_values = _score(logits, request, 0, len(logits))
    return output
