"""A copy of the trained parameters on the CPU, to go back to."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def local_values(parameter: nn.Parameter) -> Tensor:
    """The values of a parameter that lie on this rank; writing to them writes to the parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter.detach()


class WeightsCopy:
    """The trained parameters of `model`, this rank's parts where they are sharded, as `keep` found them last.

    Attributes:
        filled: whether there is a copy yet.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._pairs: list[tuple[Tensor, Tensor]] = []

    @property
    def filled(self) -> bool:
        """Whether `keep` was called."""
        return bool(self._pairs)

    def tensors(self) -> list[Tensor]:
        """The copy, a tensor for each trained parameter."""
        return [copy for _, copy in self._pairs]

    @torch.no_grad()
    def keep(self, values_kept: list[Tensor] | None = None) -> None:
        """Copy the parameters as they are, or take up `tensors` of an earlier copy."""
        if not self._pairs:
            trained = [local_values(parameter) for parameter in self._model.parameters() if parameter.requires_grad]
            self._pairs = [(values, torch.empty_like(values, device="cpu")) for values in trained]
        for index, (values, copy) in enumerate(self._pairs):
            copy.copy_(values if values_kept is None else values_kept[index])

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copy back; without one, nothing changes."""
        for values, copy in self._pairs:
            values.copy_(copy)

    @torch.no_grad()
    def blend(self, other: WeightsCopy, share: float) -> None:
        """Put the point that is `share` of the way from the copy of `other` to this one into the model."""
        for (values, copy), first in zip(self._pairs, other.tensors(), strict=True):
            values.copy_(copy if share == 1 else torch.lerp(first, copy, share))
