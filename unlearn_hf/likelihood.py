"""Answer likelihoods: negative log-likelihoods of label positions, with logits at those positions only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORE_INDEX = -100
_MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")


@dataclass
class AnswerLikelihood:
    """Negative log-likelihoods (NLL, in nats) of the labelled tokens of one batch.

    `N` is the number of labelled tokens in the batch, `B` the number of sequences, `V` the size of the vocabulary.

    Attributes:
        token_nll: NLL of each labelled token, shape `[N]`, float32, in row-major order of the batch.
        sequence_index: the row of the batch each token belongs to, shape `[N]`, int64.
        nll: NLL summed over the labelled tokens of each sequence, shape `[B]`, float32.
        tokens: number of labelled tokens of each sequence, shape `[B]`, int64.
        targets: the label of each position, shape `[N]`, int64.
        logits: logits at the labelled positions, shape `[N, V]`, float32, or `None` when they were not asked for.
        reference_nll: the reference model's `nll`, shape `[B]`, where the batch carries it.
        reference_logits: the reference model's `logits`, shape `[N, V]`, where an objective asked for them.
    """

    token_nll: Tensor
    sequence_index: Tensor
    nll: Tensor
    tokens: Tensor
    targets: Tensor
    logits: Tensor | None = None
    reference_nll: Tensor | None = None
    reference_logits: Tensor | None = None

    def sum_by_sequence(self, values: Tensor) -> Tensor:
        """Sum per-token `values` `[N]` over each sequence; returns `[B]`."""
        return torch.zeros_like(self.nll).index_add(0, self.sequence_index, values)


def language_model_head(model: nn.Module) -> nn.Module:
    """Return the module that maps hidden states to logits.

    Raises:
        ValueError: when the model has no output embeddings (it is not a causal language model).
    """
    for candidate in (model, getattr(model, "module", None), getattr(model, "_orig_mod", None)):
        getter = getattr(candidate, "get_output_embeddings", None)
        if getter is not None and (head := getter()) is not None:
            return head
    raise ValueError(
        f"model: {type(model).__name__} has no output embeddings, so it gives no token probabilities; "
        "use a causal language model (AutoModelForCausalLM)."
    )


@contextmanager
def logits_at(model: nn.Module, positions: Tensor) -> Iterator[None]:
    """Within the context, `model` computes logits only at `positions` (indices into the flattened batch, `[N]`).

    A pre-hook on the language-model head gathers the hidden states, so this holds for every architecture with a
    standard head, through any wrapper (adapters, data parallel, sharding), and whatever the model does to the logits
    afterwards (scaling, soft-capping) still happens. The model then returns logits of shape `[1, N, V]`.
    """
    handle = language_model_head(model).register_forward_pre_hook(_gather)
    _positions.append(positions)
    try:
        yield
    finally:
        _positions.pop()
        handle.remove()


# Not held by the hook itself: `torch.compile` takes what hangs on a module for constant, and would compile anew for
# every number of positions.
_positions: list[Tensor] = []


def _gather(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    hidden = arguments[0]
    return (hidden.reshape(-1, hidden.shape[-1])[_positions[-1]].unsqueeze(0), *arguments[1:])


def label_positions(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Find where labels are predicted.

    Args:
        labels: `[B, T]`, -100 where nothing is scored. The label at `t` is predicted from position `t - 1`; a label
            at position 0 cannot be predicted and is not counted.

    Returns:
        Indices into the flattened `[B * T]` positions, and the labels there; both `[N]`.
    """
    shifted = F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)
    positions = (shifted.reshape(-1) != IGNORE_INDEX).nonzero().squeeze(-1)
    return positions, shifted.reshape(-1)[positions]


def label_counts(labels: Tensor) -> Tensor:
    """Count the predicted labels of each sequence: `[B, T]` to `[B]`."""
    return (labels[:, 1:] != IGNORE_INDEX).sum(-1)


def answer_likelihood(model: nn.Module, batch: Mapping[str, Tensor], keep_logits: bool = False) -> AnswerLikelihood:
    """Score the labelled tokens of `batch`.

    Args:
        model: a causal language model, wrapped or not.
        batch: `input_ids`, `labels` and usually `attention_mask`, each `[B, T]`; optionally `position_ids` and
            `reference_nll` `[B]`.
        keep_logits: keep the `[N, V]` logits in the result (objectives that compare distributions need them).

    Returns:
        The likelihoods. The cross-entropy is computed in float32 whatever the precision of the model.
    """
    labels = batch["labels"]
    positions, targets = label_positions(labels)
    with logits_at(model, positions):
        output = model(**{name: batch[name] for name in _MODEL_INPUTS if name in batch}, use_cache=False)
    logits = output.logits.squeeze(0).float()
    token_nll = F.cross_entropy(logits, targets, reduction="none")
    sequence_index = positions // labels.shape[1]
    nll = torch.zeros(labels.shape[0], dtype=token_nll.dtype, device=token_nll.device)
    return AnswerLikelihood(
        token_nll=token_nll,
        sequence_index=sequence_index,
        nll=nll.index_add(0, sequence_index, token_nll),
        tokens=label_counts(labels),
        targets=targets,
        logits=logits if keep_logits else None,
        reference_nll=batch.get("reference_nll"),
    )
