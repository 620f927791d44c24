"""Pairs of a forget row (with what belongs to it) and a retain row, a pure function of seed, epoch and index."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset as EncodedDataset
from torch import Tensor
from torch.utils.data import Dataset


class PairedDataset(Dataset):
    """One item per forget row; each comes with a retain row, where there are any.

    The retain row is read off a fixed sequence of permutations of the retain set: pair number
    `p = epoch * len(forget) + index` takes entry `p mod len(retain)` of permutation `p // len(retain)`. So every
    retain row is seen once before any is seen twice, ranks that draw different indices draw different retain rows (as
    far as there are enough), and a resumed run draws what the interrupted one would have.

    (MUSE's code pairs forget row `i` with retain row `i mod len(retain)` in every epoch, so that a retain set larger
    than the forget set is never seen in full.)

    Args:
        forget: encoded forget rows.
        retain: encoded retain rows, or `None`.
        seed: seeds the permutations.
        **along: further sets, one row for each forget row (alternative answers, say).

    Attributes:
        sets: all of them by name.

    Raises:
        ValueError: when a set is empty, or a further one has not as many rows as the forget set.
    """

    def __init__(
        self, forget: EncodedDataset, retain: EncodedDataset | None, seed: int = 0, **along: EncodedDataset
    ) -> None:
        for name, rows in (("forget", forget), ("retain", retain)):
            if rows is not None and len(rows) == 0:
                raise ValueError(f"{name}: the dataset is empty; pairs need at least one row of each.")
        for name, rows in along.items():
            if len(rows) != len(forget):
                raise ValueError(f"{name}: {len(rows)} rows do not go along with {len(forget)} forget rows.")
        self.sets = {"forget": forget, **({} if retain is None else {"retain": retain}), **along}
        self.seed = seed
        # Shared memory, so that data-loading workers that are already running see a new epoch.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._permutations: dict[int, Tensor] = {}

    @property
    def forget(self) -> EncodedDataset:
        """The rows to forget."""
        return self.sets["forget"]

    @property
    def retain(self) -> EncodedDataset:
        """The rows to keep."""
        return self.sets["retain"]

    def __len__(self) -> int:
        return len(self.forget)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose pairs are read next."""
        self._epoch[0] = epoch

    def retain_index(self, index: int, epoch: int | None = None) -> int:
        """The retain row paired with forget row `index` in `epoch` (by default the current one)."""
        epoch = int(self._epoch[0]) if epoch is None else epoch
        cycle, entry = divmod(epoch * len(self.forget) + index, len(self.retain))
        if cycle not in self._permutations:
            # What an epoch needs is kept, whatever the order of its indices; other epochs' permutations are dropped.
            first, last = (p // len(self.retain) for p in (epoch * len(self), (epoch + 1) * len(self) - 1))
            kept = {number: order for number, order in self._permutations.items() if first <= number <= last}
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + cycle) % (1 << 63))
            self._permutations = {**kept, cycle: torch.randperm(len(self.retain), generator=generator)}
        return int(self._permutations[cycle][entry])

    def retain_rows(self, epochs: int) -> list[int]:
        """The retain rows that the first `epochs` epochs use, sorted."""
        if epochs * len(self.forget) >= len(self.retain):
            return list(range(len(self.retain)))
        return sorted({self.retain_index(index, epoch) for epoch in range(epochs) for index in range(len(self))})

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = range(len(self))[index]  # negative indices mean the same pair; others are an IndexError
        place = {"retain": self.retain_index(index)} if "retain" in self.sets else {}
        return {name: rows[place.get(name, index)] for name, rows in self.sets.items()}
