"""One gradient buffer per objective: collect, Gram matrix, combine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

OBJECTIVE_NAMES = ("forget", "retain")


class GradientBuffers:
    """Keep the gradients of several objectives apart while an ordinary training loop accumulates them.

    Within `collect(name)` the parameters' `.grad` *are* the buffer of that objective, so whatever the backward pass
    does to `.grad` (accumulation over micro-batches, reduction over ranks, sharding, loss scaling) happens to the
    buffer. After the last micro-batch `gram()` gives the inner products and `combine()` writes the weighted sum
    into `.grad`, where clipping and the optimizer find it.

    Args:
        parameters: the parameters that are trained.
        names: the objectives.
        device: where buffers rest between backward passes; `None` leaves them where the gradients are, `"cpu"`
            frees that much accelerator memory for one copy each way per backward pass.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        names: Sequence[str] = OBJECTIVE_NAMES,
        device: str | torch.device | None = None,
    ) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        if not self.parameters:
            raise ValueError("parameters: none requires a gradient; unfreeze some or add an adapter.")
        self.names = tuple(names)
        self.device = torch.device(device) if device is not None else None
        self._buffers: dict[str, list[Tensor | None]] = {}
        self.clear()

    def clear(self) -> None:
        """Forget all collected gradients."""
        self._buffers = {name: [None] * len(self.parameters) for name in self.names}

    @contextmanager
    def collect(self, name: str) -> Iterator[None]:
        """Accumulate what is backpropagated within the context into the buffer of objective `name`."""
        buffer = self._buffers[name]
        outside = [parameter.grad for parameter in self.parameters]
        for parameter, gradient in zip(self.parameters, buffer, strict=True):
            parameter.grad = gradient.to(parameter.device) if gradient is not None else None
        try:
            yield
        finally:
            for index, (parameter, gradient) in enumerate(zip(self.parameters, outside, strict=True)):
                collected = parameter.grad
                if collected is not None and self.device is not None:
                    collected = collected.to(self.device)
                buffer[index] = collected
                parameter.grad = gradient

    def grams(self, scale: float = 1.0, metric: Callable[[nn.Parameter], Tensor | None] | None = None) -> Tensor:
        """Inner products of the collected gradients, for each trained parameter by itself.

        Args:
            scale: the factor the loss was multiplied by (a gradient scaler's); the result is divided by its square.
            metric: from a parameter to the positive weights of its elements in the product (sharded as it is), or
                `None` where all count alike.

        Returns:
            `[P, K, K]` float64 on the CPU: `P` parameters in the order of `parameters`, `K` objectives in the order
            of `names`. Products are taken in float32. A missing gradient counts as zero. Over sharded parameters the
            products are those of the whole tensors, so every rank must call this.
        """
        size = len(self.names)
        places: list[tuple[int, int, int]] = []
        pairs: list[tuple[Tensor, Tensor]] = []
        products: list[Tensor] = []
        for index, gradients in enumerate(zip(*(self._buffers[name] for name in self.names), strict=True)):
            weights = metric(self.parameters[index]) if metric is not None else None
            for i in range(size):
                for j in range(i, size):
                    first, second = gradients[i], gradients[j]
                    if first is not None and second is not None:
                        places.append((index, i, j))
                        pairs.append((first, second))
                        products.append(_inner_product(first, second, weights))
        grams = torch.zeros(len(self.parameters), size, size, dtype=torch.float64)
        if pairs:
            # one reduction and one copy to the CPU for all of them
            values = _added_up_over_shards(torch.stack(products), pairs).cpu().double() / scale**2
            parameter, row, column = torch.tensor(places).unbind(1)
            grams[parameter, row, column] = grams[parameter, column, row] = values
        return grams

    def gram(self, scale: float = 1.0) -> Tensor:
        """Inner products of the collected gradients over all trained parameters: the sum of `grams` over them.

        Args:
            scale: the factor the loss was multiplied by (a gradient scaler's); the result is divided by its square.

        Returns:
            `[K, K]` float64 on the CPU, `K` the number of objectives in the order of `names`. Products are taken in
            float32 within a tensor and summed over tensors in float64. A missing gradient counts as zero.
        """
        return self.grams(scale).sum(0)

    def collected(self, name: str) -> list[Tensor | None]:
        """The gradients of objective `name`, one for each trained parameter; a changed entry replaces the gradient."""
        return self._buffers[name]

    def combine(self, weights: Sequence[float] | Tensor) -> None:
        """Set `.grad` of every parameter to the weighted sum of the buffers, and clear them.

        The buffers of the first objective are overwritten in place, so no further memory is taken; the others are
        only read. A parameter without any gradient keeps none. A weight of exactly zero leaves that objective out, so
        an infinite gradient under it does no harm.

        Args:
            weights: one for each objective, `[K]`, or for each parameter and objective, `[P, K]`.
        """
        shape = (len(self.parameters), len(self.names))
        rows = torch.as_tensor(weights, dtype=torch.float64).expand(shape).tolist()
        for index, (parameter, row) in enumerate(zip(self.parameters, rows, strict=True)):
            total: Tensor | None = None
            for name, weight in zip(self.names, row, strict=True):
                gradient = self._buffers[name][index]
                self._buffers[name][index] = None
                if gradient is None or weight == 0:
                    continue
                gradient = gradient.to(parameter.device, parameter.dtype)
                if total is not None:
                    total.add_(gradient, alpha=weight)
                else:
                    total = gradient.mul_(weight) if name == self.names[0] else gradient * weight
            parameter.grad = total
        self.clear()

    def combine_elementwise(self, rule: Callable[..., Tensor]) -> None:
        """Set `.grad` of every parameter to what `rule` makes of its gradients, and clear the buffers.

        Args:
            rule: from the gradients of one parameter, in the order of `names`, to one tensor like them. A missing
                gradient counts as zero; a parameter without any gradient keeps none. Sharded gradients come as they
                are, so the rule must work element by element.
        """
        for index, parameter in enumerate(self.parameters):
            found = [self._buffers[name][index] for name in self.names]
            if all(gradient is None for gradient in found):
                parameter.grad = None
                continue
            given = [
                torch.zeros_like(parameter) if gradient is None else gradient.to(parameter.device, parameter.dtype)
                for gradient in found
            ]
            for name in self.names:
                self._buffers[name][index] = None
            parameter.grad = rule(*given)
        self.clear()


def _inner_product(first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
    """Inner product of two gradients in float32, weighted or not; of this rank's part when they are sharded."""
    if weights is not None:
        first = first.float() * weights.to(first.device, torch.float32)
    if isinstance(first, DTensor) and isinstance(second, DTensor):
        # Buffers may rest on the CPU, but the ranks add up over the devices of their mesh.
        device = first.device_mesh.device_type
        first, second = (each.to_local().to(device) for each in (first, second))
    return torch.dot(first.reshape(-1).float(), second.reshape(-1).float())


def _added_up_over_shards(products: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Products of whole tensors from those of this rank's parts: one reduction for all that are sharded alike."""
    alike: dict[tuple[Any, tuple[int, ...]], list[int]] = {}
    for index, (gradient, _) in enumerate(pairs):
        if isinstance(gradient, DTensor):
            dimensions = tuple(at for at, placement in enumerate(gradient.placements) if placement.is_shard())
            alike.setdefault((gradient.device_mesh, dimensions), []).append(index)
    for (mesh, dimensions), indices in alike.items():
        part = products[indices]
        for dimension in dimensions:
            torch.distributed.all_reduce(part, group=mesh.get_group(dimension))
        products[indices] = part
    return products
