"""Unlearning written the usual way, to compare with: padded batches, all logits, a copied reference model.

The mathematics is that of the package; the code is what one writes on top of `transformers.Trainer` in an afternoon,
and what most public repositories do: one forward pass per set with logits at every position, both graphs alive until
one backward pass, and for NPO a deep copy of the model that is asked in every step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

BETA = 0.1
LAYER = 3
"""The layer that RMU compares."""
PlainLoss = Callable[[nn.Module, nn.Module, dict[str, Any]], Tensor]
"""Model, reference and batches to a loss."""


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


def answer_logits(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits at all positions but the last, `[B, T - 1, V]`, the labels there, and which of them count."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    labels = batch["labels"][:, 1:]
    return logits[:, :-1], labels.clamp(min=0), labels != -100


def token_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `[B, T]` where `mask` is set."""
    return (values * mask).sum() / mask.sum()


def hidden_states(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Hidden states after layer `LAYER` where labels are predicted, and which of them count; the whole model runs."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    output = model(**inputs, use_cache=False, output_hidden_states=True)
    return output.hidden_states[LAYER + 1][:, :-1], batch["labels"][:, 1:] != -100


def weighted_ascent(weight: Callable[[Tensor], Tensor]) -> PlainLoss:
    """Ascent with a weight of each token's probability."""

    def loss(model: nn.Module, reference: nn.Module, batches: dict[str, Any]) -> Tensor:
        logits, labels, mask = answer_logits(model, batches["forget"])
        nll = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        return -token_mean(weight((-nll.detach()).exp()) * nll, mask)

    return loss


def dpo(model: nn.Module, reference: nn.Module, batches: dict[str, Any]) -> Tensor:
    """Two forward passes of either model."""
    names = ("forget", "alternative")
    with torch.no_grad():
        before = [sequence_nll(reference, batches[name]) for name in names]
    forget, other = (sequence_nll(model, batches[name]) - old for name, old in zip(names, before, strict=True))
    return -(2 / BETA) * F.logsigmoid(BETA * (forget - other)).mean()


def undial(model: nn.Module, reference: nn.Module, batches: dict[str, Any]) -> Tensor:
    """A teacher's logits at all positions."""
    logits, labels, mask = answer_logits(model, batches["forget"])
    with torch.no_grad():
        teacher = answer_logits(reference, batches["forget"])[0]
        teacher = (teacher - 10.0 * F.one_hot(labels, teacher.shape[-1])).softmax(-1)
    return token_mean(F.cross_entropy(logits.transpose(1, 2), teacher.transpose(1, 2), reduction="none"), mask)


def ceu(model: nn.Module, reference: nn.Module, batches: dict[str, Any]) -> Tensor:
    """The model's own distribution without the true token."""
    logits, labels, mask = answer_logits(model, batches["forget"])
    target = logits.detach().scatter(-1, labels[..., None], -torch.inf).softmax(-1)
    return token_mean(F.cross_entropy(logits.transpose(1, 2), target.transpose(1, 2), reduction="none"), mask)


def logit_margin(model: nn.Module, reference: nn.Module, batches: dict[str, Any]) -> Tensor:
    """Largest logit over the mean."""
    logits, _, mask = answer_logits(model, batches["forget"])
    return token_mean((logits.max(-1).values - logits.mean(-1)).square(), mask)


def kl_uniform(model: nn.Module, reference: nn.Module, batches: dict[str, Any]) -> Tensor:
    """Divergence from a tensor full of `1 / V`."""
    logits, _, mask = answer_logits(model, batches["forget"])
    uniform = torch.full_like(logits, 1 / logits.shape[-1])
    return token_mean(F.kl_div(logits.log_softmax(-1), uniform, reduction="none").sum(-1), mask)


def rmu(model: nn.Module, reference: nn.Module, batches: dict[str, Any]) -> Tensor:
    """Hidden states towards a direction."""
    hidden, mask = hidden_states(model, batches["forget"])
    drawn = torch.rand(hidden.shape[-1], generator=torch.Generator().manual_seed(42), dtype=torch.float64).to(hidden)
    return token_mean((hidden - 2.0 * drawn / drawn.norm()).square().mean(-1), mask)


class PlainObjective(PlainTrainer):
    """A forget loss of its own, with a copied reference where it asks one, and retain loss NLL or hidden states."""

    loss: PlainLoss
    needs_reference = False
    compares_hidden = False

    def __init__(self, model: nn.Module, args: TrainingArguments, **others: Any) -> None:
        super().__init__(model, args, **others)
        self.reference: Any = copy.deepcopy(self.model).eval() if self.needs_reference else None  # type: ignore[union-attr]

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Sum of both losses."""
        forget = type(self).loss(model, self.reference, inputs)
        if self.compares_hidden:
            hidden, mask = hidden_states(model, inputs["retain"])
            with torch.no_grad():
                before, _ = hidden_states(self.reference, inputs["retain"])
            retain = token_mean((hidden - before).square().mean(-1), mask)
        else:
            retain = mean_nll(model, inputs["retain"])
        self.losses.append((forget.item(), retain.item()))
        return forget + retain


def plain_objective(loss: PlainLoss, reference: bool = False, hidden: bool = False) -> type[PlainObjective]:
    """A trainer for one of them."""
    about = {"loss": staticmethod(loss), "needs_reference": reference, "compares_hidden": hidden}
    return type("PlainObjective", (PlainObjective,), about)


OBJECTIVES: dict[str, type[PlainObjective]] = {
    "dpo": plain_objective(dpo, reference=True),
    "idk": plain_objective(lambda model, reference, batches: mean_nll(model, batches["alternative"])),
    "rmu": plain_objective(rmu, reference=True, hidden=True),
    "undial": plain_objective(undial, reference=True),
    "ceu": plain_objective(ceu),
    "wga": plain_objective(weighted_ascent(lambda p: p)),
    "satimp": plain_objective(weighted_ascent(lambda p: p**5 * (1 - p))),
    "logit_margin": plain_objective(logit_margin),
    "kl_uniform": plain_objective(kl_uniform),
}
PLAIN: dict[str, type[PlainTrainer]] = {"graddiff": PlainTrainer, "npo": PlainNPO, "ngdiff": PlainNGDiff, **OBJECTIVES}
