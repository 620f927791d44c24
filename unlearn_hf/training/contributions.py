"""From batches to the contributions of an objective: asks the models what it needs, and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from unlearn_hf.data.collator import join
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.objectives.base import ALTERNATIVE, Needs, Objective
from unlearn_hf.reference.model_before import ReferenceModel
from unlearn_hf.reference.stored import StoredReference


def batch_names(name: str, needs: Needs) -> list[str]:
    """Names of the batches whose answers the loss `name` (forget or retain) asks the model about."""
    return [name if answer == "own" else ALTERNATIVE for answer in needs.answers]


def contributions(
    objective: Objective,
    parameters: Any,
    model: nn.Module,
    batches: list[Mapping[str, Tensor]],
    reference: ReferenceModel | StoredReference | None = None,
    unwrapped: nn.Module | None = None,
    packed: bool = False,
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """The contributions of each sequence of the first of `batches` to the loss, `[B]`.

    Two batches go through the model as one, so that wrappers see one forward pass.

    Args:
        objective: what is minimised.
        parameters: its parameters.
        model: the model that is trained, wrapped or not.
        batches: those named by `batch_names`, in order.
        reference: the model before unlearning, where the objective needs its distributions or hidden states.
        unwrapped: `model` without its wrapper, for the reference.
        packed: see `answer_likelihood`.
        precision: context of the reference's forward pass.
    """
    needs = objective.needs_with(parameters)
    batch: Any = join(batches) if len(batches) > 1 else batches[0]
    layer = parameters.layer if needs.hidden else None
    logits_before = hidden_before = None
    if reference is not None:
        with precision():
            if "logits" in needs.reference:
                logits_before = reference.logits(unwrapped or model, batch, packed)
            if "hidden" in needs.reference:
                hidden_before = reference.hidden(unwrapped or model, batch, parameters.layer, packed)

    def values(logits: Tensor, targets: Tensor, start: int) -> dict[str, Tensor]:
        assert objective.token_function is not None
        before = logits_before(slice(start, start + len(logits))) if logits_before is not None else None
        return {"objective": objective.token_function(logits, targets, before, parameters)}

    function = values if objective.token_function is not None else None
    likelihood = answer_likelihood(model, batch, token_function=function, nll=needs.nll, layer=layer, packed=packed)
    likelihood.reference_hidden = hidden_before
    if len(batches) > 1:
        likelihood, other = likelihood.split(len(batches[0]["labels"]))
        likelihood.alternative = other
    return objective(likelihood, parameters)
