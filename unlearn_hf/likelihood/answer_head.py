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
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unlearn_hf.likelihood.answer_request import AnswerOutput, AnswerRequest
from unlearn_hf.likelihood.head_in_chunks import LARGEST_LOGITS, answer_in_chunks, answer_of_logits
from unlearn_hf.models.wrappers import causal_model, decoder_layers, only_layers


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
        exchange.answer = answer_in_chunks(exchange.model, chosen, request, count)
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
            answer = answer_of_logits(logits.squeeze(0) if chosen is not None else _choose(logits, answers), answers)
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

    def note(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    # Removed before a backward pass computes activations again.
    hook = owner.get_submodule(f"{name}.{request.layer}").register_forward_hook(note)
    ends = request.targets is None and not request.keep_hidden
    try:
        with only_layers(model, request.layer + 1) if ends else nullcontext():
            yield found
    finally:
        hook.remove()


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
    return answer_of_logits(_choose(logits, request), request)
