"""Answer likelihoods: negative log-likelihoods of label positions, with logits at those positions only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from unlearn_hf.data.labels import label_counts, label_positions
from unlearn_hf.likelihood.answer_head import ask
from unlearn_hf.likelihood.answer_request import AnswerOutput, AnswerRequest, TokenFunction
from unlearn_hf.likelihood.one_pass import evaluating
from unlearn_hf.likelihood.packed_rows import by_sequence, can_share, flash_lengths, pack

_MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")


@dataclass
class AnswerLikelihood:
    """Negative log-likelihoods (NLL, in nats) of the labelled tokens of one batch.

    `N` is the number of labelled tokens in the batch, `B` the number of sequences, `V` the size of the vocabulary.

    Attributes:
        token_nll: NLL of each labelled token, shape `[N]`, float32, in row-major order of the batch; NaN, like `nll`,
            where it was not asked for.
        sequence_index: the row of the batch each token belongs to, shape `[N]`, int64.
        nll: NLL summed over the labelled tokens of each sequence, shape `[B]`, float32.
        tokens: number of labelled tokens of each sequence, shape `[B]`, int64.
        targets: the label of each position, shape `[N]`, int64.
        logits: logits at the labelled positions, shape `[N, V]`, float32, or `None` when they were not asked for.
        reference_nll: `nll` of the model before unlearning, shape `[B]`, where the batch carries it.
        token_values: what a token function gave, each of shape `[N]`.
        hidden: hidden states after the layer that was asked for, shape `[N, H]`.
        reference_hidden: those of the model before unlearning, where they were asked for.
        alternative: the likelihoods of alternative answers of the same rows, where an objective is about both.
    """

    token_nll: Tensor
    sequence_index: Tensor
    nll: Tensor
    tokens: Tensor
    targets: Tensor
    logits: Tensor | None = None
    reference_nll: Tensor | None = None
    token_values: dict[str, Tensor] = field(default_factory=dict)
    hidden: Tensor | None = None
    reference_hidden: Tensor | None = None
    alternative: AnswerLikelihood | None = None

    def sum_by_sequence(self, values: Tensor) -> Tensor:
        """Sum per-token `values` `[N]` over each sequence; returns `[B]`."""
        return values.new_zeros(len(self.tokens)).index_add(0, self.sequence_index, values)

    def split(self, first: int) -> tuple[AnswerLikelihood, AnswerLikelihood]:
        """The likelihoods of the `first` sequences, and those of the others (without logits)."""
        is_first = self.sequence_index < first
        parts = []
        for chosen, rows in ((is_first, slice(None, first)), (~is_first, slice(first, None))):
            by_token = {name: getattr(self, name) for name in ("hidden", "reference_hidden")}
            parts.append(
                AnswerLikelihood(
                    token_nll=self.token_nll[chosen],
                    sequence_index=self.sequence_index[chosen] - (rows.start or 0),
                    nll=self.nll[rows],
                    tokens=self.tokens[rows],
                    targets=self.targets[chosen],
                    token_values={name: values[chosen] for name, values in self.token_values.items()},
                    reference_nll=None if self.reference_nll is None else self.reference_nll[rows],
                    **{name: None if values is None else values[chosen] for name, values in by_token.items()},
                )
            )
        return parts[0], parts[1]


def ask_about(
    model: nn.Module, batch: Mapping[str, Tensor], request: AnswerRequest, packed: bool = False
) -> AnswerOutput:
    """Answer `request`, whose positions are those of the padded `batch`, with or without the padding."""
    if not packed:
        return ask(model, {name: batch[name] for name in _MODEL_INPUTS if name in batch}, request)
    inputs, positions = pack(batch, request.positions, can_share(model))
    inputs |= flash_lengths(model, inputs)
    request = replace(request, positions=positions, length=inputs["input_ids"].shape[1])
    with by_sequence(model):
        return ask(model, inputs, request)


def answer_likelihood(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    keep_logits: bool = False,
    *,
    token_function: TokenFunction | None = None,
    nll: bool = True,
    layer: int | None = None,
    largest_logits: int | None = None,
    packed: bool = False,
) -> AnswerLikelihood:
    """Score the labelled tokens of `batch`.

    Args:
        model: a causal language model, wrapped or not.
        batch: `input_ids`, `labels` and usually `attention_mask`, each `[B, T]`; optionally `position_ids` and
            `reference_nll` `[B]`.
        keep_logits: keep the `[N, V]` logits in the result.
        token_function: further values of each token, read off its logits in chunks; gradients then flow through
            these values alone.
        nll: whether likelihoods are wanted. Without them, and without a token function, the head is not run.
        layer: keep the hidden states after this layer, counted from 0; if these are all that is wanted, the model
            runs no further.
        largest_logits: where the logits would have more elements, head and cross-entropy run in chunks of at most
            that many, computed again in the backward pass; `keep_logits` keeps them whole. By default what
            `chunked.LARGEST_LOGITS` has for the device.
        packed: run the model on the sequences laid end to end, without padding; see `packing`.

    Returns:
        The likelihoods. The cross-entropy is computed in float32 whatever the precision of the model.

    Raises:
        ValueError: when the model has no logits (it is not a causal language model).
    """
    labels = batch["labels"]
    positions, targets = label_positions(labels)
    request = AnswerRequest(
        positions,
        labels.shape[1],
        targets if nll or token_function is not None or keep_logits else None,
        token_function,
        nll,
        keep_logits,
        layer=layer,
        largest_logits=largest_logits,
    )
    output = ask_about(model, batch, request, packed)
    token_nll = output.token_nll
    if token_nll is None:
        token_nll = torch.full((len(positions),), torch.nan, device=positions.device)
    sequence_index = positions // labels.shape[1]
    return AnswerLikelihood(
        token_nll=token_nll,
        sequence_index=sequence_index,
        nll=token_nll.new_zeros(labels.shape[0]).index_add(0, sequence_index, token_nll),
        tokens=label_counts(labels),
        targets=targets,
        logits=output.logits,
        hidden=output.layer_output,
        token_values=output.token_values or {},
        reference_nll=batch.get("reference_nll"),
    )


def largest_packing_error(model: nn.Module, batch: Mapping[str, Tensor]) -> float:
    """How far likelihoods of packed rows are from those of padded ones, as a share of these.

    An architecture with recurrent layers or an attention of its own may not tell packed sequences apart.

    Args:
        model: a causal language model, wrapped or not; its mode is left as it was.
        batch: some padded rows.

    Returns:
        The largest relative difference of the NLL of a sequence (of one nat at least); infinity where the model does
        not take packed rows.
    """
    try:
        with evaluating(model):
            padded = answer_likelihood(model, batch).nll
            packed = answer_likelihood(model, batch, packed=True).nll
    except (IndexError, RuntimeError, TypeError, ValueError):
        return float("inf")  # the way in which an architecture says that it takes no such rows
    return float(((packed - padded).abs() / padded.abs().clamp(min=1)).max())
