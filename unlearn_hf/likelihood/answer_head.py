"""Answers without logits of the whole batch: decoder, answer positions, head in chunks.

A causal language model that was `teach`-ed takes an `answers=AnswerRequest(...)` in its `forward` and then returns an
`AnswerOutput` in place of logits. All of it happens inside the model's own forward, so that wrappers (adapters, data
parallel, sharding, autocast, compilation) do to it what they do to any forward pass: a hook on the decoder lets only
the answer positions reach the head. Where even their logits would be large, the hook runs the rest of the forward on
chunks of positions, by the architecture's own code, so that scaling and soft-capping happen as always.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import ModelOutput

from unlearn_hf.likelihood import in_place_losses
from unlearn_hf.models.wrappers import causal_model, decoder_layers

LARGEST_LOGITS = {"cpu": 2**25, "cuda": 2**28}
"""Most elements of the logits that exist at once, in float32 128 MiB on the CPU and 1 GiB on a GPU, where many small
products cost more; above it the head runs in chunks."""

TokenFunction = Callable[[Tensor, Tensor, int], dict[str, Tensor]]
"""Maps logits `[n, V]` (float32), targets `[n]` and the index of the first of these `n` tokens in the batch to named
values `[n]`. Called on one chunk after the other, and once more on each in the backward pass. Gradients flow through
its values; those of the likelihoods beside it carry none."""


@dataclass(eq=False)
class AnswerRequest:
    """What a model is asked instead of logits.

    Attributes:
        positions: indices into the flattened batch `[B * T]`, shape `[N]`.
        length: tokens per row, `T`.
        targets: the token that each position should predict, `[N]`; `None` asks for no likelihoods.
        token_function: further values of each token.
        nll: whether likelihoods are wanted beside a token function.
        keep_logits: also return all logits.
        keep_hidden: also return the hidden states before the head.
        layer: also return the output of this layer, counted from 0; without targets, the model runs no further.
        largest_logits: most elements of logits at once; by default what `LARGEST_LOGITS` has for the device.
    """

    positions: Tensor
    length: int
    targets: Tensor | None = None
    token_function: TokenFunction | None = None
    nll: bool = True
    keep_logits: bool = False
    keep_hidden: bool = False
    layer: int | None = None
    largest_logits: int | None = None


@dataclass
class AnswerOutput(ModelOutput):
    """What a model answers.

    Attributes:
        token_nll: negative log-likelihood of each target, `[N]`, float32 (NaN where it was not wanted).
        token_values: what the token function gave, each `[N]`.
        logits: `[N, V]`, float32.
        hidden: hidden states before the head, `[N, H]`.
        layer_output: hidden states after the layer that was asked for, `[N, H]`.
    """

    token_nll: Tensor | None = None
    token_values: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    hidden: Tensor | None = None
    layer_output: Tensor | None = None


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


@dataclass(eq=False)
class _Exchange:
    """Between the forward of a causal language model and a hook on its decoder.

    Attributes:
        model: the causal language model.
        request: what is asked in the forward pass at hand.
        chosen: hidden states at the answer positions, `[N, H]`, once the decoder has run.
        answer: the answer, where it was found in chunks.
    """

    model: nn.Module
    request: AnswerRequest | None = None
    chosen: Tensor | None = None
    answer: AnswerOutput | None = None


def _leave_answer_positions(decoder: nn.Module, _: Any, output: Any) -> Any:
    """Hook on the decoder: let only the answer positions reach the head."""
    exchange: _Exchange = decoder.__dict__["_exchange"]
    request, exchange.request = exchange.request, None
    if request is None:
        return output
    hidden = output[0]
    exchange.chosen = chosen = _at_positions(hidden, request)
    weight = exchange.model.get_output_embeddings().weight  # type: ignore[operator]
    vocabulary = getattr(weight, "ds_shape", weight.shape)[0]  # DeepSpeed has it gathered only while the head runs
    largest = request.largest_logits or LARGEST_LOGITS.get(chosen.device.type, LARGEST_LOGITS["cuda"])
    count = max(1, largest // vocabulary)
    if request.targets is not None and not request.keep_logits and len(chosen) > count:
        exchange.answer = _answer_in_chunks(exchange.model, chosen, request, count)
        chosen = chosen[:1].detach()  # what the head makes of it is not used
    elif request.targets is None and not request.keep_logits:
        chosen = chosen[:1].detach()
    output.last_hidden_state = chosen.unsqueeze(0)
    return output


def _at_positions(hidden: Tensor, request: AnswerRequest) -> Tensor:
    """The hidden states `[N, H]` at the answer positions of all of them, `[B, T, H]`."""
    # Virtual tokens of a prompt adapter come first in every row.
    extra = hidden.shape[1] - request.length
    return hidden[request.positions // request.length, request.positions % request.length + extra]


@torch.compiler.disable
def _answer_in_chunks(model: nn.Module, chosen: Tensor, request: AnswerRequest, count: int) -> AnswerOutput:
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
        nll = F.cross_entropy(logits.detach(), targets, reduction="none") if request.nll else _unknown(logits)
        return nll, request.token_function(logits, targets, start)
    if request.keep_logits:
        return F.cross_entropy(logits, targets, reduction="none"), {}
    return in_place_losses.cross_entropy(logits, targets), {}


def _unknown(rows: Tensor) -> Tensor:
    """What stands for a value of each row that nobody asked for."""
    return rows.new_full((len(rows),), torch.nan)


@torch.compiler.disable
def _answer(logits: Tensor, request: AnswerRequest) -> AnswerOutput:
    """Score logits that exist, `[N, V]`."""
    logits = _precise(logits)
    output = AnswerOutput(logits=logits if request.keep_logits else None)
    if request.targets is not None:
        output.token_nll, output.token_values = _score(logits, request, 0, len(logits))
    return output


def _choose(logits: Tensor, request: AnswerRequest) -> Tensor:
    """The logits `[N, V]` at the answer positions of all logits `[B, T, V]`."""
    return logits[:, logits.shape[1] - request.length :].flatten(0, 1)[request.positions]


@functools.cache
def _taught(original: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of a class with one argument more; its signature is still read by generation."""

    @functools.wraps(original)
    def forward(self: Any, *args: Any, answers: AnswerRequest | None = None, **kwargs: Any) -> Any:
        if answers is None:
            return self._forward_to_logits(*args, **kwargs)
        exchange: _Exchange = self._exchange
        exchange.request, exchange.chosen, exchange.answer = answers, None, None
        with _layer_output(exchange.model, answers) as layer_output:
            logits = self._forward_to_logits(*args, **kwargs).logits
        exchange.request, chosen, exchange.chosen = None, exchange.chosen, None
        answer, exchange.answer = exchange.answer, None
        if answer is None:
            # Without hidden states the decoder was not where it should be, and the logits are all there.
            answer = _answer(logits.squeeze(0) if chosen is not None else _choose(logits, answers), answers)
        answer.hidden = chosen if answers.keep_hidden else None
        if layer_output:
            answer.layer_output = _at_positions(layer_output[0], answers)
        return answer

    return forward


@contextmanager
def _layer_output(model: nn.Module, request: AnswerRequest) -> Iterator[list[Tensor]]:
    """Note the output of the layer that is asked for; leave out the layers above when nothing else is."""
    found: list[Tensor] = []
    if request.layer is None:
        yield found
        return
    owner, name = decoder_layers(model)
    layers: Any = owner.get_submodule(name)

    def note(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    # Removed before a backward pass computes activations again.
    hook = layers[request.layer].register_forward_hook(note)
    if request.targets is None and not request.keep_hidden:
        owner._modules[name] = nn.ModuleList(layers[: request.layer + 1])
    try:
        yield found
    finally:
        hook.remove()
        owner._modules[name] = layers


def teach(model: nn.Module) -> bool:
    """Let `model` take `answers` in its forward; done once, `False` where its build does not allow it."""
    inner = causal_model(model)
    if inner is None:
        return False
    decoder: Any = inner.get_decoder()  # type: ignore[operator]
    if decoder.__dict__.get("_exchange") is None:
        decoder.__dict__["_exchange"] = inner.__dict__["_exchange"] = _Exchange(inner)
        decoder.register_forward_hook(_leave_answer_positions)
    taught = _taught(type(inner).forward)
    known: Any = inner.forward
    while known is not None:
        if getattr(known, "__func__", known) is taught:
            return True
        known = getattr(known, "__wrapped__", None)
    inner.__dict__["_forward_to_logits"] = inner.forward
    inner.forward = types.MethodType(taught, inner)
    return True


def ask(model: nn.Module, inputs: dict[str, Any], request: AnswerRequest) -> AnswerOutput:
    """Answer `request` about `inputs`, wherever the model allows it without logits of the whole batch.

    Args:
        model: a causal language model, wrapped or not.
        inputs: arguments of its forward (`input_ids`, `attention_mask`, ...).
        request: what is asked.

    Returns:
        What was asked; `hidden` is `None` where the model is not built like those of transformers.

    Raises:
        ValueError: when the model has no logits (it is not a causal language model), or none of the layers that are
            asked for.
    """
    if teach(model):
        return model(**inputs, use_cache=False, answers=request)
    if request.layer is not None:
        raise ValueError(f"model: the layers of {type(model).__name__} are not found; use another objective.")
    logits = getattr(model(**inputs, use_cache=False), "logits", None)
    if logits is None or logits.dim() != 3:
        raise ValueError(
            f"model: {type(model).__name__} gives no token probabilities; use a causal language model "
            "(AutoModelForCausalLM)."
        )
    return _answer(_choose(logits, request), request)
