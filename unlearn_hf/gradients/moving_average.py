"""A moving average of one objective's gradient over optimizer steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from unlearn_hf.gradients.buffers import GradientBuffers


class GradientAverage:
    """Exponential moving average of a gradient: `m_t = momentum * m_{t-1} + (1 - momentum) * g_t`, `m_0 = 0`.

    It lives in float32 where the gradient buffers rest (`gradient_buffer_device`), sharded as they are, and takes one
    further copy of the trained parameters. A step is taken in two parts, because whether a step counts is known only
    after it: `enter` puts the new average in the place of the gradient, `commit` makes it the average, `discard` does
    not.

    Args:
        momentum: share of the past, from 0 (no memory) to below 1.
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self._values: list[Tensor | None] = []
        self._entered: list[Tensor | None] = []
        self._scale = 1.0

    @torch.no_grad()
    def enter(self, buffers: GradientBuffers, name: str, scale: float = 1.0) -> None:
        """Replace the collected gradient of objective `name` in `buffers` by the average that includes it.

        Args:
            buffers: gradients after accumulation and reduction over ranks. `name` must not be their first objective,
                whose buffer `GradientBuffers.combine` overwrites.
            name: the objective.
            scale: the factor a gradient scaler has multiplied gradients by; the average is kept without it.
        """
        if name == buffers.names[0]:
            raise ValueError(f"name: {name!r} is the first objective, whose gradient is overwritten; average another.")
        gradients = buffers.collected(name)
        past = self._values or [None] * len(gradients)
        for index, (gradient, value) in enumerate(zip(gradients, past, strict=True)):
            # In place where the gradient is float32 already. A missing gradient counts as zero.
            average = gradient.float().mul_(1 - self.momentum) if gradient is not None else None
            if value is not None:
                share = self.momentum * scale
                average = value * share if average is None else average.add_(value, alpha=share)
            gradients[index] = average
        self._entered, self._scale = list(gradients), scale

    @torch.no_grad()
    def commit(self) -> None:
        """Keep the average that was entered last: the optimizer has stepped. Without one, nothing changes."""
        if not self._entered:
            return
        for value in self._entered:
            if value is not None and self._scale != 1:
                value.div_(self._scale)
        self._values, self._entered = self._entered, []

    def discard(self) -> None:
        """Forget the average that was entered last: its gradient is not to be trusted."""
        self._entered = []

    def state_dict(self, keep: bool = True) -> dict[str, Any]:
        """The average, whole and on the CPU: four bytes for each trained parameter.

        Args:
            keep: whether this rank wants it. Every rank must call this where parameters are sharded; those that do
                not keep it help to gather one tensor after another, and get an empty state.
        """
        values: list[Tensor | None] = []
        for value in self._values:
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            if keep:
                values.append(whole.cpu() if whole is not None else None)
        return {"values": values}

    def load_state_dict(self, state: dict[str, Any], buffers: GradientBuffers) -> None:
        """Take up a saved average, laid out as the gradients of `buffers` will be.

        Raises:
            ValueError: when the trained parameters are not those of the saved run.
        """
        saved: list[Tensor | None] = state["values"]
        if not saved:
            self._values = []
            return
        shapes = [parameter.shape for parameter in buffers.parameters]
        if len(saved) != len(shapes) or any(
            value is not None and value.shape != shape for value, shape in zip(saved, shapes, strict=True)
        ):
            raise ValueError(
                f"resume_from_checkpoint: the saved run trained {len(saved)} parameters, and not those {len(shapes)} "
                "that are trained now; resume with its adapter and its trainable_parameters."
            )
        self._values = [
            value if value is None else _laid_out(value, parameter, buffers.device)
            for value, parameter in zip(saved, buffers.parameters, strict=True)
        ]


def _laid_out(value: Tensor, parameter: Tensor, device: torch.device | None) -> Tensor:
    """`value` on the device (and shards) where the gradient of `parameter` rests."""
    if isinstance(parameter, DTensor):
        value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value.to(device if device is not None else parameter.device)
