"""EUPMU against a loop written out from its formulas in float64: losses, dual variable, weights, update."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from tests.small_runs import build_trainer, parameters
from tests.tiny_models import build_model

STEPS = 7
RATE = 0.02
NPO_BETA = 0.1

SGD: dict[str, Any] = {"dual_optimizer": "sgd", "dual_learning_rate": 0.5}
LEVEL: dict[str, Any] = {"constraint": "level", "level_probe_rows": 6, "level_probe_interval": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {**SGD, "dual_signal": "raw", "per_learning_rate": True, "initial_dual": 0.0},
    "tolerance": {**SGD, "dual_signal": "raw", "per_learning_rate": True, "epsilon": 0.05},
    "released": {"initial_dual": 0.0, "epsilon": -0.02},
    "released-log": {"scalarization": "log", "dual_learning_rate": 0.025, "initial_dual": 0.3},
    "released-raw": {"scalarization": "normalized", "dual_signal": "raw", "epsilon": -0.003},
    "fast": {"scalarization": "normalized", "reevaluate": False, "dual_learning_rate": 1.0, "epsilon": -0.01},
    "fast-log": {**SGD, "scalarization": "log", "reevaluate": False, "initial_dual": 0.4, "epsilon": 0.01},
    "fast-raw": {"reevaluate": False, "dual_signal": "raw", "per_learning_rate": True, "dual_weight_decay": 0.1},
    "weight-decay": {**SGD, "dual_weight_decay": 0.5},
    "proportional": {**SGD, "dual_proportional": 20.0, "maximum_dual": 1.1},
    "level-probe": {**LEVEL, "epsilon": 0.001},
    "level-probe-demand": {**LEVEL, **SGD, "epsilon": -0.05, "scalarization": "normalized"},
    "level-probe-raw": {**LEVEL, "dual_signal": "raw", "scalarization": "log", "initial_dual": 0.2},
    "level-batch": {**LEVEL, "level_estimate": "batch", "dual_proportional": 0.0, "maximum_dual": 1.02},
    "level-batch-fast": {**LEVEL, "level_estimate": "batch", "reevaluate": False, "epsilon": 0.01},
    "level-ema": {**LEVEL, "level_estimate": "ema", "level_ema_decay": 0.5, "dual_signal": "raw"},
    "level-ema-log": {**LEVEL, "level_estimate": "ema", "scalarization": "log", "epsilon": -0.03},
}


def sequence_nll(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """NLL of each sequence: minus the log-probability of every label, given what is before it."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    log_p = torch.log_softmax(logits, -1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -(log_p * (labels != -100)).sum(-1)


def cross_entropy(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return sequence_nll(model, batch).sum() / (batch["labels"][:, 1:] != -100).sum()


def npo(model: Any, reference: Any, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        before = sequence_nll(reference, batch)
    return 2 / NPO_BETA * softplus(-NPO_BETA * (sequence_nll(model, batch) - before)).mean()


class Dual:
    """`[w - proportional slack]_+` with w moved by SGD or by Adam (0.9, 0.999, 1e-8), weight decay coupled."""

    def __init__(self, options: dict[str, Any]) -> None:
        level = options.get("constraint") == "level"
        self.optimizer = options.get("dual_optimizer", "adam")
        self.rate, self.decay = options.get("dual_learning_rate", 0.3), options.get("dual_weight_decay")
        if self.decay is None:
            self.decay = 0.01 if self.optimizer == "adam" else 0.0
        self.gain, self.bound = options.get("dual_proportional", 30.0 if level else 0.0), options.get("maximum_dual")
        self.w = options.get("initial_dual", 1.0)
        self.m = self.v = self.slack = 0.0
        self.t = 0

    def clamp(self, value: float) -> float:
        return min(max(value, 0.0), math.inf if self.bound is None else self.bound)

    def move(self, slack: float) -> None:
        gradient, self.slack = slack + self.decay * self.w, slack
        self.t += 1
        self.m, self.v = 0.9 * self.m + 0.1 * gradient, 0.999 * self.v + 0.001 * gradient**2
        adam = (self.m / (1 - 0.9**self.t)) / (math.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)
        self.w = self.clamp(self.w - self.rate * (gradient if self.optimizer == "sgd" else adam))

    @property
    def value(self) -> float:
        return self.clamp(self.w - self.gain * self.slack)


def slack_of(earlier: float, later: float, options: dict[str, Any]) -> float:
    """The room left: raw or log, per learning rate or not, against the tolerance."""
    epsilon, log = options.get("epsilon", 0.0), options.get("dual_signal", "log") == "log"
    if options.get("constraint") == "level":
        return math.log((1 + epsilon) * earlier / later) if log else earlier + epsilon - later
    change = math.log(earlier / later) if log else earlier - later
    return change / (RATE if options.get("per_learning_rate") else 1.0) + epsilon


class Level:
    """Base and current loss, and whether they are new, after each step."""

    def __init__(self, reference: Any, probe: dict[str, Tensor] | None, options: dict[str, Any]) -> None:
        self.reference, self.probe, self.options = reference, probe, options
        self.history: list[tuple[float, float]] = []

    @torch.no_grad()
    def measured(self, step: int, model: Any, batch: dict[str, Tensor], loss: float) -> tuple[float, float] | None:
        if self.probe is not None:
            if step % self.options["level_probe_interval"]:
                return None
            return cross_entropy(self.reference, self.probe).item(), cross_entropy(model, self.probe).item()
        self.history.append((cross_entropy(self.reference, batch).item(), loss))
        if self.options["level_estimate"] == "batch":
            return self.history[-1]
        decay = self.options.get("level_ema_decay", 0.9)
        weights = [decay ** (len(self.history) - 1 - index) for index in range(len(self.history))]
        means = [sum(w * pair[i] for w, pair in zip(weights, self.history, strict=True)) for i in range(2)]
        return means[0] / sum(weights), means[1] / sum(weights)


def run_by_hand(
    batches: list[dict[str, dict[str, Tensor]]], probe: dict[str, Tensor] | None, options: dict[str, Any]
) -> Iterator[tuple[float, Any]]:
    """Yield the dual in force in each step, and the model after it: plain SGD, float64."""
    model, reference = build_model().double(), build_model().double()
    dual, level, last = Dual(options), Level(reference, probe, options), None
    scalarization, again = options.get("scalarization", "sum"), options.get("reevaluate", True)
    by_level = options.get("constraint") == "level"
    for step, batch in enumerate(batches, 1):
        forget, retain = npo(model, reference, batch["forget"]), cross_entropy(model, batch["retain"])
        if not again and not by_level:
            if last is not None:
                dual.move(slack_of(last, retain.item(), options))
            last = retain.item()
        value = dual.value
        if scalarization == "log":
            objective = forget.log() + value * retain.log()
        else:
            objective = (forget + value * retain) / (1 + value if scalarization == "normalized" else 1)
        gradients = torch.autograd.grad(objective, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= RATE * gradient
            after = cross_entropy(model, batch["retain"]).item()
        if by_level:
            pair = level.measured(step, model, batch["retain"], after if again else retain.item())
            if pair is not None:
                dual.move(slack_of(*pair, options))
        elif again:
            dual.move(slack_of(retain.item(), after, options))
        yield value, model


@pytest.mark.parametrize("name", OPTIONS)
def test_trainer_follows_the_formulas_step_by_step(name: str, tmp_path: Path) -> None:
    options = OPTIONS[name]
    plain = {"initial_dual": 1.0} | options
    # The same rows to forget and to keep: the two conflict, so that the dual variable has to move.
    trainer = build_trainer("eupmu", tmp_path, max_steps=STEPS, learning_rate=RATE, forget_seed=2, **plain)
    batches: list[dict[str, dict[str, Tensor]]] = []
    trainer.before_step = lambda losses: batches.extend(trainer.window.batches)  # type: ignore[union-attr, method-assign]
    trainer.train()
    probe = None
    if trainer.retain_level is not None and trainer.retain_level._probe is not None:
        probe = trainer.data_collator(trainer.retain_level._probe.rows)
    by_hand = list(run_by_hand(batches, probe, options))
    expected = [dual for dual, _ in by_hand]
    found = [line["dual_variable"] for line in trainer.state.log_history if "dual_variable" in line]
    assert len(found) == STEPS
    assert len(set(expected)) > 2, expected  # it moved
    assert found == pytest.approx(expected, rel=2e-3, abs=2e-4)
    after = parameters(trainer.model)
    moved = sum((after[n] - p).norm().item() for n, p in build_model().named_parameters())
    error = sum((after[n].double() - p).norm().item() for n, p in by_hand[-1][1].named_parameters())
    assert error < 2e-4 * moved


@pytest.mark.parametrize("name", OPTIONS)
def test_dual_follows_exactly_from_the_losses_the_trainer_measured(name: str, tmp_path: Path) -> None:
    options = OPTIONS[name]
    trainer = build_trainer(
        "eupmu", tmp_path, max_steps=STEPS, learning_rate=RATE, **({"initial_dual": 1.0} | options)
    )
    expected, found, last = Dual(options), [], None
    original, fast = trainer.after_step, not options.get("reevaluate", True)

    def after_step(before: Any, after: Any) -> None:
        nonlocal last
        original(before, after)
        if options.get("constraint") == "level":
            level = trainer.retain_level
            assert level is not None
            if level.step == trainer.state.global_step + 1:
                assert level.base is not None
                assert level.current is not None
                expected.move(slack_of(level.base, level.current, options))
        elif not fast:
            expected.move(slack_of(before.retain, after.retain, options))
        elif last is not None:
            expected.move(slack_of(last, before.retain, options))
        last = before.retain
        found.append((trainer.dual.value, expected.value))

    trainer.after_step = after_step  # type: ignore[method-assign]
    trainer.train()
    assert len(found) == STEPS
    assert [pair[0] for pair in found] == pytest.approx([pair[1] for pair in found], abs=1e-10)
