"""Whole runs against a plain float64 loop: full logits, a sum over the window, the rule as written, SGD or Adam."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.small_runs import build_trainer
from tests.tiny_models import build_model

Rule = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def hamu(best: Tensor, bound: Tensor, progress: float, radius: float) -> Tensor:
    """`max <best, d>` with `<bound, d> >= progress` in the ball."""
    free = radius * best / best.norm()
    if free @ bound >= progress:
        return free
    along = progress * bound / bound.norm() ** 2
    beside = best - (best @ bound) / (bound @ bound) * bound
    if beside.norm() < 1e-9 * best.norm():  # the same rows on both sides: opposite gradients
        return along
    return along + (radius**2 - along.norm() ** 2).sqrt() * beside / beside.norm()


def sago(g_f: Tensor, g_r: Tensor, both: bool, w_f: float, w_r: float) -> Tensor:
    conflict = ((g_f > 0) & (g_r < 0)) | ((g_f < 0) & (g_r > 0))
    return torch.where(conflict, w_r * g_r, w_f * g_f + both * w_r * g_r)


def one_sided(g_f: Tensor, g_r: Tensor) -> Tensor:
    product = g_f @ g_r
    projected = g_f - product / (g_r @ g_r) * g_r if product < 0 else g_f
    return 0.5 * projected + 2.0 * g_r


def gu(g_f: Tensor, g_r: Tensor, metric: Tensor | None, w_r: float) -> Tensor:
    whitened = g_r if metric is None else metric * g_r
    return g_f - (g_f @ whitened) / (g_r @ whitened) * g_r + w_r * g_r


RULES: dict[str, Rule] = {
    "hamu": lambda g_f, g_r, _: hamu(g_r, g_f, 0.5, 1.0),
    "hamu-u": lambda g_f, g_r, _: hamu(g_f, g_r, -0.1, 0.5),
    "sago": lambda g_f, g_r, _: sago(g_f, g_r, False, 1.0, 2.0),
    "sago-prefer-retain-cpu": lambda g_f, g_r, _: sago(g_f, g_r, True, 0.5, 1.0),
    "surgery-one-sided": lambda g_f, g_r, _: one_sided(g_f, g_r),
    "gu": lambda g_f, g_r, _: gu(g_f, g_r, None, 0.5),
    "gu-adam": lambda g_f, g_r, metric: gu(g_f, g_r, metric, 1.0),
}


def answers(model: Any, batches: list[dict[str, Any]], name: str) -> Tensor:
    """Mean NLL of all answer tokens of the window, from full logits."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        part = batch[name]
        logits = model(input_ids=part["input_ids"], attention_mask=part["attention_mask"]).logits[:, :-1]
        labels = part["labels"][:, 1:]
        total = total + F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
        count += int((labels != -100).sum())
    return total / count


def gradient(model: Any, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([value.flatten() for value in found])


@pytest.mark.parametrize("conflicting", [False, True])
@pytest.mark.parametrize("case", list(RULES))
def test_the_trajectory_is_that_of_a_plain_loop(case: str, conflicting: bool, tmp_path: Path) -> None:
    """Five steps over windows of three rows and of one (an epoch has four), forgetting by gradient ascent."""
    plain: Any = copy.deepcopy(build_model()).double()
    trainer = build_trainer(
        case,
        tmp_path,
        forget_loss="ga",
        forget_seed=2 if conflicting else 1,
        forget=4,
        retain=4 if conflicting else 20,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=3,
        max_steps=5,
    )
    windows: list[list[dict[str, Any]]] = []
    trainer.before_step = lambda losses: windows.append(trainer.window.batches)  # type: ignore[method-assign]
    trainer.train()
    assert [len(window) for window in windows] == [3, 1, 3, 1, 3]
    adam = case == "gu-adam"
    rate, first, second = 0.05, torch.zeros(()), torch.zeros(())
    position = torch.nn.utils.parameters_to_vector(plain.parameters()).detach()
    for step, window in enumerate(windows):
        forget, retain = (gradient(plain, answers(plain, window, name)) for name in ("forget", "retain"))
        metric = 1 / ((second / (1 - 0.999**step)).sqrt() + 0.05) if adam and step else None
        direction = RULES[case](-forget, retain, metric)
        if adam:
            first = 0.9 * first + 0.1 * direction
            second = 0.999 * second + 0.001 * direction**2
            unbiased = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
            direction = unbiased[0] / (unbiased[1].sqrt() + 0.1)
        position = position - rate * direction
        torch.nn.utils.vector_to_parameters(position, plain.parameters())
    found = torch.nn.utils.parameters_to_vector(trainer.model.parameters()).double()
    assert (found - position).abs().max() < 5e-6
