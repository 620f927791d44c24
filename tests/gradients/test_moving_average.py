"""The moving average of a gradient against its closed form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate import debug_launcher
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from unlearn_hf.gradients.buffers import GradientBuffers
from unlearn_hf.gradients.moving_average import GradientAverage

MOMENTUM = 0.75
GRADIENTS = [torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]


def collect(parameter: torch.nn.Parameter, gradient: torch.Tensor, scale: float = 1.0) -> GradientBuffers:
    """Buffers in which the retain gradient is `gradient` and the forget gradient all ones."""
    buffers = GradientBuffers([parameter])
    for name, value in (("forget", torch.ones_like(parameter)), ("retain", gradient)):
        with buffers.collect(name):
            (parameter * value * scale).sum().backward()
    return buffers


def closed_form(gradients: list[torch.Tensor]) -> torch.Tensor:
    """`(1 - momentum) * sum over steps of momentum ** age * gradient`, in float64."""
    terms = [MOMENTUM**age * gradient.double() for age, gradient in enumerate(reversed(gradients))]
    return (1 - MOMENTUM) * torch.stack(terms).sum(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_it_is_the_weighted_sum_of_past_gradients_in_float32(scale: float, dtype: torch.dtype) -> None:
    parameter = torch.nn.Parameter(torch.zeros(5, 3, dtype=dtype))
    gradients = [gradient.to(dtype) for gradient in GRADIENTS]
    average = GradientAverage(MOMENTUM)
    for gradient in gradients:
        buffers = collect(parameter, gradient, scale)
        average.enter(buffers, "retain", scale)
        buffers.combine((1.0, 0.5))
        average.commit()
    (value,) = average.state_dict()["values"]
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), closed_form(gradients), rtol=1e-6, atol=1e-6)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    assert parameter.grad is not None
    expected = scale * (1 + 0.5 * closed_form(gradients))
    torch.testing.assert_close(parameter.grad.double(), expected, rtol=tolerance, atol=tolerance)


def test_the_gram_matrix_sees_the_average() -> None:
    parameter = torch.nn.Parameter(torch.zeros(5, 3))
    average = GradientAverage(MOMENTUM)
    for gradient in GRADIENTS:
        buffers = collect(parameter, gradient, 8.0)
        average.enter(buffers, "retain", 8.0)
        gram = buffers.gram(8.0)
        average.commit()
    expected = closed_form(GRADIENTS)
    torch.testing.assert_close(gram[1, 1], (expected**2).sum(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gram[0, 1], expected.sum(), rtol=1e-5, atol=1e-6)


def test_what_is_not_committed_leaves_no_trace() -> None:
    parameter = torch.nn.Parameter(torch.zeros(5, 3))
    average = GradientAverage(MOMENTUM)
    for index, gradient in enumerate(GRADIENTS):
        average.enter(collect(parameter, gradient), "retain")
        if index == 1:
            average.discard()
        if index != 2:  # step 2 was skipped by the optimizer
            average.commit()
    (value,) = average.state_dict()["values"]
    expected = closed_form([GRADIENTS[0], GRADIENTS[3]])
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)


def test_combining_leaves_the_average_alone_where_there_is_no_forget_gradient() -> None:
    parameter = torch.nn.Parameter(torch.zeros(5, 3))
    buffers = GradientBuffers([parameter])
    with buffers.collect("retain"):
        (parameter * GRADIENTS[0]).sum().backward()
    average = GradientAverage(MOMENTUM)
    average.enter(buffers, "retain")
    buffers.combine((1.0, 3.0))
    average.commit()
    (value,) = average.state_dict()["values"]
    torch.testing.assert_close(value, (1 - MOMENTUM) * GRADIENTS[0])


def test_the_first_objective_cannot_be_averaged() -> None:
    parameter = torch.nn.Parameter(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="'forget' is the first"):
        GradientAverage(MOMENTUM).enter(collect(parameter, GRADIENTS[0]), "forget")


def test_other_parameters_than_saved_are_refused() -> None:
    average = GradientAverage(MOMENTUM)
    average.enter(collect(torch.nn.Parameter(torch.zeros(5, 3)), GRADIENTS[0]), "retain")
    average.commit()
    for shapes in ([(3, 5)], [(5, 3), (2,)]):
        others = GradientBuffers([torch.nn.Parameter(torch.zeros(shape)) for shape in shapes])
        with pytest.raises(ValueError, match="resume_from_checkpoint: the saved run trained 1 parameters"):
            GradientAverage(MOMENTUM).load_state_dict(average.state_dict(), others)


def _sharded(folder: str) -> None:
    """Average, save and load with parameters sharded over two ranks, as FSDP2 leaves them."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    parameter = torch.nn.Parameter(distribute_tensor(torch.zeros(5, 3), mesh, [Shard(0)]))
    average = GradientAverage(MOMENTUM)
    for gradient in GRADIENTS:
        buffers = collect(parameter, distribute_tensor(gradient, mesh, [Shard(0)]))
        average.enter(buffers, "retain")
        grams = buffers.grams()
        buffers.combine(torch.tensor([[1.0, 0.5]]))
        average.commit()
    state = average.state_dict()
    assert average.state_dict(keep=False) == {"values": []}
    loaded = GradientAverage(MOMENTUM)
    loaded.load_state_dict(state, GradientBuffers([parameter]))
    assert isinstance(loaded._values[0], DTensor)
    assert loaded._values[0].placements == parameter.placements
    assert torch.equal(loaded.state_dict()["values"][0], state["values"][0])
    gradient = parameter.grad.full_tensor()  # type: ignore[union-attr]
    if dist.get_rank() == 0:
        torch.save({"value": state["values"][0], "grams": grams, "gradient": gradient}, Path(folder) / "found.pt")


def test_sharded_over_two_ranks(tmp_path: Path) -> None:
    debug_launcher(_sharded, args=(str(tmp_path),), num_processes=2)
    found = torch.load(tmp_path / "found.pt")
    expected = closed_form(GRADIENTS)
    torch.testing.assert_close(found["value"].double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found["gradient"].double(), 1 + 0.5 * expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found["grams"][0, 1, 1], (expected**2).sum(), rtol=1e-5, atol=1e-6)
