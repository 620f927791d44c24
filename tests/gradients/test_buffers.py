"""Gradient buffers against analytic gradients."""

from __future__ import annotations

import pytest
import torch

from unlearn_hf.gradients.buffers import GradientBuffers


def two_losses(parameters: list[torch.nn.Parameter]) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = parameters
    return (a**2).sum() / 2, (a * b).sum()  # gradients (a, 0) and (b, a)


@pytest.fixture
def parameters() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.tensor([1.0, -2.0])), torch.nn.Parameter(torch.tensor([3.0, 0.5]))]


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("passes", [1, 3])
def test_collect_gram_combine(parameters: list[torch.nn.Parameter], passes: int, device: str | None) -> None:
    buffers = GradientBuffers(parameters, device=device)
    for _ in range(passes):
        for name, index in (("forget", 0), ("retain", 1)):
            with buffers.collect(name):
                (two_losses(parameters)[index] / passes).backward()
    assert all(parameter.grad is None for parameter in parameters)
    a, b = (parameter.detach().double() for parameter in parameters)
    expected = torch.stack([torch.stack([a @ a, a @ b]), torch.stack([a @ b, b @ b + a @ a])])
    torch.testing.assert_close(buffers.gram(), expected, rtol=1e-6, atol=1e-6)
    buffers.combine((0.5, -2.0))
    torch.testing.assert_close(parameters[0].grad.double(), 0.5 * a - 2 * b)
    torch.testing.assert_close(parameters[1].grad.double(), -2 * a)
    assert buffers.gram().eq(0).all()


def test_one_gram_for_each_parameter(parameters: list[torch.nn.Parameter]) -> None:
    buffers = GradientBuffers(parameters)
    for name, index in (("forget", 0), ("retain", 1)):
        with buffers.collect(name):
            (two_losses(parameters)[index] * 8).backward()
    a, b = (parameter.detach().double() for parameter in parameters)
    zero = torch.zeros((), dtype=torch.float64)  # the second parameter has no forget gradient
    first = torch.stack([torch.stack([a @ a, a @ b]), torch.stack([a @ b, b @ b])])
    second = torch.stack([torch.stack([zero, zero]), torch.stack([zero, a @ a])])
    found = buffers.grams(scale=8.0)
    torch.testing.assert_close(found, torch.stack([first, second]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.sum(0), buffers.gram(scale=8.0))


def test_gram_is_free_of_the_loss_scale(parameters: list[torch.nn.Parameter]) -> None:
    grams = []
    for scale in (1.0, 1024.0):
        buffers = GradientBuffers(parameters)
        for name, index in (("forget", 0), ("retain", 1)):
            with buffers.collect(name):
                (two_losses(parameters)[index] * scale).backward()
        grams.append(buffers.gram(scale))
    torch.testing.assert_close(grams[0], grams[1])


def test_weight_zero_shuts_out_infinities(parameters: list[torch.nn.Parameter]) -> None:
    buffers = GradientBuffers(parameters)
    for name, index in (("forget", 0), ("retain", 1)):
        with buffers.collect(name):
            two_losses(parameters)[index].backward()
    buffers._buffers["forget"][0].fill_(float("inf"))
    buffers.combine((0.0, 1.0))
    assert all(torch.isfinite(parameter.grad).all() for parameter in parameters)


def test_collect_restores_what_was_there_even_after_an_error(parameters: list[torch.nn.Parameter]) -> None:
    before = torch.ones(2)
    parameters[0].grad = before
    buffers = GradientBuffers(parameters)
    with pytest.raises(RuntimeError), buffers.collect("forget"):
        raise RuntimeError
    assert parameters[0].grad is before


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ValueError, match="parameters"):
        GradientBuffers([torch.nn.Parameter(torch.ones(1), requires_grad=False)])
