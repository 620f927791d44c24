"""Every objective against a plain implementation with all logits, in float64: loss and gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.small_runs import rows
from tests.tiny_models import build_model
from unlearn_hf.data.collator import collate
from unlearn_hf.likelihood import head_in_chunks
from unlearn_hf.objectives import FORGET_OBJECTIVES, RETAIN_OBJECTIVES, Objective
from unlearn_hf.reference.model_before import ReferenceModel
from unlearn_hf.training.contributions import batch_names, contributions

LAYER = 0


@dataclass
class Plain:
    """What a plain forward pass over padded rows gives: all logits and hidden states, shifted to the labels."""

    model: nn.Module
    batch: dict[str, Tensor]

    def __post_init__(self) -> None:
        inputs = {name: self.batch[name] for name in ("input_ids", "attention_mask")}
        output = self.model(**inputs, output_hidden_states=True)
        self.logits, self.hidden = output.logits[:, :-1], output.hidden_states[LAYER + 1][:, :-1]
        self.labels = self.batch["labels"][:, 1:]
        self.mask = self.labels != -100
        safe = self.labels.clamp(min=0)
        self.token_nll = -self.logits.log_softmax(-1).gather(-1, safe[..., None])[..., 0] * self.mask
        self.nll, self.tokens = self.token_nll.sum(-1), self.mask.sum(-1)
        self.onehot = F.one_hot(safe, self.logits.shape[-1]).double()

    def over_tokens(self, values: Tensor) -> Tensor:
        """The mean over label positions."""
        return values[self.mask].mean()


def log_sigmoid_loss(margin: Tensor, beta: float) -> Tensor:
    return -(2 / beta) * (beta * margin).sigmoid().log().mean()


def direction(size: int) -> Tensor:
    drawn = torch.rand(size, generator=torch.Generator().manual_seed(42), dtype=torch.float64)
    return drawn / drawn.square().sum().sqrt()


def without_target(now: Plain) -> Tensor:
    """The model's distribution without the true token, by its probabilities."""
    rest = now.logits.softmax(-1) * (1 - now.onehot)
    return (rest / rest.sum(-1, keepdim=True)).detach()


def weighted(now: Plain, weight: Callable[[Tensor], Tensor]) -> Tensor:
    return now.over_tokens(-weight((-now.token_nll).exp().detach()) * now.token_nll)


def steered(now: Plain, target: Tensor) -> Tensor:
    return now.over_tokens((now.hidden - target).square().mean(-1))


# objective: parameters, and its formula of the model now and before, on the rows' own answers and the alternative ones
CASES: dict[str, tuple[dict[str, Any], Callable[[Plain, Plain, Plain, Plain], Tensor]]] = {
    "ga": ({}, lambda now, before, other, other_before: -now.nll.sum() / now.tokens.sum()),
    "npo": (
        {"beta": 0.3},
        lambda now, before, other, other_before: log_sigmoid_loss(now.nll - before.nll, 0.3),
    ),
    "simnpo": (
        {"beta": 2.5, "delta": 0.1},
        lambda now, before, other, other_before: log_sigmoid_loss(now.nll / now.tokens - 0.1, 2.5),
    ),
    "dpo": (
        {"beta": 0.3},
        lambda now, before, other, other_before: log_sigmoid_loss(
            (other_before.nll - other.nll) - (before.nll - now.nll), 0.3
        ),
    ),
    "idk": ({}, lambda now, before, other, other_before: other.nll.sum() / other.tokens.sum()),
    "rmu": (
        {"layer": LAYER, "steering_coefficient": 3.0},
        lambda now, before, other, other_before: steered(now, 3.0 * direction(now.hidden.shape[-1])),
    ),
    "rmu adaptive": (
        {"layer": LAYER, "steering_coefficient": 3.0, "adaptive_steering": True},
        lambda now, before, other, other_before: steered(
            now, 3.0 * before.hidden.square().sum(-1, keepdim=True).sqrt() * direction(now.hidden.shape[-1])
        ),
    ),
    "undial": (
        {"strength": 4.0},
        lambda now, before, other, other_before: now.over_tokens(
            -((before.logits - 4.0 * now.onehot).softmax(-1) * now.logits.log_softmax(-1)).sum(-1)
        ),
    ),
    "ceu": (
        {},
        lambda now, before, other, other_before: now.over_tokens(
            -(without_target(now) * now.logits.log_softmax(-1)).sum(-1)
        ),
    ),
    "wga": ({"weight_exponent": 0.7}, lambda now, before, other, other_before: weighted(now, lambda p: p**0.7)),
    "satimp": (
        {"saturation": 2.0, "importance": 1.5},
        lambda now, before, other, other_before: weighted(now, lambda p: p**2.0 * (1 - p) ** 1.5),
    ),
    "logit_margin": (
        {},
        lambda now, before, other, other_before: now.over_tokens(
            (now.logits.max(-1).values - now.logits.mean(-1)).square()
        ),
    ),
    "kl_uniform": (
        {},
        lambda now, before, other, other_before: now.over_tokens(
            (-math.log(now.logits.shape[-1]) - now.logits.log_softmax(-1)).mean(-1)
        ),
    ),
    "nll": ({}, lambda now, before, other, other_before: now.nll.sum() / now.tokens.sum()),
    "kl": (
        {},
        lambda now, before, other, other_before: now.over_tokens(
            (before.logits.softmax(-1) * (before.logits.log_softmax(-1) - now.logits.log_softmax(-1))).sum(-1)
        ),
    ),
    "hidden": (
        {"layer": LAYER},
        lambda now, before, other, other_before: steered(now, before.hidden),
    ),
}


def objective_of(case: str) -> tuple[Objective, str]:
    name = case.split()[0]
    return (FORGET_OBJECTIVES[name], "forget") if name in FORGET_OBJECTIVES else (RETAIN_OBJECTIVES[name], "retain")


def test_every_objective_is_in_the_table() -> None:
    assert {case.split()[0] for case in CASES} == {*FORGET_OBJECTIVES, *RETAIN_OBJECTIVES}


@pytest.mark.parametrize("how", ["plain", "packed", "chunks"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient(case: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, side = objective_of(case)
    values, formula = CASES[case]
    parameters = objective.parameters(**values)
    needs = objective.needs_with(parameters)
    model = build_model().double()
    if how == "chunks":
        monkeypatch.setitem(head_in_chunks.LARGEST_LOGITS, "cpu", 1200)
    own, alternative = (collate(list(rows(5, seed)), pad_token_id=1) for seed in (1, 2))
    with torch.no_grad():
        before, other_before = Plain(model, own), Plain(model, alternative)
    if "nll" in needs.reference:
        own["reference_nll"], alternative["reference_nll"] = before.nll, other_before.nll
    reference = None
    if {"logits", "hidden"} & set(needs.reference):
        layers = None if "logits" in needs.reference else LAYER + 1
        reference = ReferenceModel(model, layers=layers)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(index)
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    expected = formula(Plain(model, own), before, Plain(model, alternative), other_before)
    trained = list(model.parameters())
    wanted = torch.autograd.grad(expected, trained, allow_unused=True)
    batches = {side: own, "alternative": alternative}
    names = batch_names(side, needs)
    found = contributions(
        objective, parameters, model, [batches[name] for name in names], reference, packed=how == "packed"
    )
    labels = batches[names[0]]["labels"]
    assert found.shape == (len(labels),)
    count = len(labels) if objective.unit == "sequences" else (labels[:, 1:] != -100).sum()
    loss = found.sum() / count
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    for found_gradient, gradient in zip(torch.autograd.grad(loss, trained, allow_unused=True), wanted, strict=True):
        if gradient is None or found_gradient is None:
            other = found_gradient if gradient is None else gradient
            assert other is None or not other.any()
        else:
            torch.testing.assert_close(found_gradient, gradient, rtol=1e-6, atol=1e-6)
    if objective.non_negative:
        assert (found >= 0).all()


@pytest.mark.parametrize("case", [case for case in CASES if objective_of(case)[0].zero_before_unlearning])
def test_zero_before_unlearning(case: str) -> None:
    objective, _ = objective_of(case)
    model, batch = build_model(), collate(list(rows(4, 1)), pad_token_id=1)
    found = contributions(objective, objective.parameters(**CASES[case][0]), model, [batch], ReferenceModel(model))
    torch.testing.assert_close(found, torch.zeros(4), rtol=0, atol=1e-4)
