"""Unlearning written the usual way, to compare with: padded batches, all logits, a copied reference model.

The mathematics is that of the package; the code is what one writes on top of `transformers.Trainer` in an afternoon,
and what most public repositories do: one forward pass per set with logits at every position, both graphs alive until
one backward pass, and for NPO a deep copy of the model that is asked in every step.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

BETA = 0.1


def sequence_nll(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """NLL of the answers, `[B]`, from the logits at all positions."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    shifted = logits[..., :-1, :].contiguous()
    labels = batch["labels"][..., 1:].contiguous()
    each = F.cross_entropy(shifted.transpose(-1, -2), labels, ignore_index=-100, reduction="none")
    return each.sum(-1)


def mean_nll(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy, by the model itself."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    return model(**inputs, use_cache=False).loss


class PlainTrainer(Trainer):
    """Base: remembers the losses of every step."""

    loss_is_scaled_for_ga = True

    def __init__(self, model: nn.Module, args: TrainingArguments, **others: Any) -> None:
        self.losses: list[tuple[float, float]] = []
        super().__init__(model=model, args=args, **others)

    def forget_loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Gradient ascent."""
        return -mean_nll(model, batch)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Sum of both losses."""
        forget, retain = self.forget_loss(model, inputs["forget"]), mean_nll(model, inputs["retain"])
        self.losses.append((forget.item(), retain.item()))
        return forget + retain


class PlainNPO(PlainTrainer):
    """Negative preference optimisation with a copied reference."""

    def __init__(self, model: nn.Module, args: TrainingArguments, **others: Any) -> None:
        super().__init__(model, args, **others)
        self.reference = copy.deepcopy(self.model).eval()  # type: ignore[union-attr]

    def forget_loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """`-(2 / beta) log sigmoid(beta (nll - nll_ref))`."""
        with torch.no_grad():
            reference = sequence_nll(self.reference, batch)
        return -(2 / BETA) * F.logsigmoid(BETA * (sequence_nll(model, batch) - reference)).mean()


class PlainNGDiff(PlainTrainer):
    """Both gradients as lists, normalised and added."""

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Two backward passes, norms, and a sum."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        forget = self.forget_loss(model, inputs["forget"])
        forget_gradients = torch.autograd.grad(forget, parameters)
        retain = mean_nll(model, inputs["retain"])
        retain_gradients = torch.autograd.grad(retain, parameters)
        self.losses.append((forget.item(), retain.item()))
        norms = [
            torch.sqrt(sum((gradient.square().sum() for gradient in gradients), start=torch.zeros(())))
            for gradients in (forget_gradients, retain_gradients)
        ]
        for parameter, first, second in zip(parameters, forget_gradients, retain_gradients, strict=True):
            parameter.grad = first / norms[0] + second / norms[1]
        return (forget + retain).detach()


PLAIN: dict[str, type[PlainTrainer]] = {"graddiff": PlainTrainer, "npo": PlainNPO, "ngdiff": PlainNGDiff}
