"""What a model is asked in place of logits, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput

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
