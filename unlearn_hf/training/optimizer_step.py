"""The accumulation window: what belongs to one optimizer step, over micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor

from unlearn_hf.data.labels import label_counts

RandomState = tuple[Tensor, Tensor | None]


class Losses(NamedTuple):
    """Forget and retain loss of one optimizer step, averaged over its micro-batches and ranks."""

    forget: float
    retain: float


@dataclass
class Totals:
    """What losses are divided by: counts over all micro-batches and ranks of a step, per rank.

    Data parallelism averages gradients over ranks, so the counts are divided by the number of ranks too.
    """

    tokens: dict[str, float]
    sequences: dict[str, float]

    def of(self, unit: str, name: str) -> float:
        """The count of `unit` (`tokens` or `sequences`) of the set `name`; at least a tiny positive number."""
        return max(getattr(self, unit)[name], 1e-9)


@dataclass
class Window:
    """One optimizer step: its micro-batches, the counts to divide by, the losses seen so far.

    Attributes:
        batches: the micro-batches of this rank.
        totals: the counts.
        seen: micro-batches whose backward pass has run.
        losses: sum of the (already divided) losses of this rank, by set.
        random_states: random-number states before each forward pass of a set, to repeat it with the same dropout.
    """

    batches: list[dict[str, Any]]
    totals: Totals
    seen: int = 0
    losses: dict[str, Tensor] = field(default_factory=dict)
    random_states: dict[str, list[RandomState]] = field(default_factory=dict)

    @property
    def is_last(self) -> bool:
        """Whether the micro-batch at hand is the last of the step."""
        return self.seen == len(self.batches)

    def record(self, name: str, loss: Tensor) -> None:
        """Add one micro-batch's share of the loss of set `name`."""
        loss = loss.detach().float()
        self.losses[name] = self.losses[name] + loss if name in self.losses else loss

    def reduced(self, accelerator: Accelerator, norm: Tensor | None = None) -> tuple[Losses, float]:
        """The losses averaged over ranks (NaN for one that was not needed), and a norm with them in one transfer.

        Args:
            accelerator: knows the ranks.
            norm: of this rank's gradients; the average over ranks is finite only where all of them are. Default: 0.
        """
        missing = torch.tensor(float("nan"), device=accelerator.device)
        values = [self.losses.get(name, missing) for name in Losses._fields]
        values.append((norm if norm is not None else torch.zeros(())).to(missing))
        *losses, average = accelerator.reduce(torch.stack(values), "mean").tolist()
        return Losses(*losses), average


def count_totals(batches: list[dict[str, Any]], accelerator: Accelerator) -> Totals:
    """Count labelled tokens and sequences of each set over `batches` and all ranks.

    A batch is either `{"forget": ..., "retain": ..., ...}` or one plain batch, counted under the name `"plain"`.
    """
    names = ["plain"] if "labels" in batches[0] else list(batches[0])
    counts = torch.zeros(2, len(names), dtype=torch.float64)
    for batch in batches:
        for column, name in enumerate(names):
            labels = batch["labels"] if name == "plain" else batch[name]["labels"]
            counts[0, column] += label_counts(labels).sum().item()
            counts[1, column] += labels.shape[0]
    if accelerator.num_processes > 1:
        # float32 counts integers exactly up to 2 ** 24, and every accelerator has it
        counts = accelerator.reduce(counts.float().to(accelerator.device), "mean").cpu().double()
    tokens, sequences = counts.tolist()
    return Totals(dict(zip(names, tokens, strict=True)), dict(zip(names, sequences, strict=True)))


def random_state(device: torch.device) -> RandomState:
    """The state of the generators a forward pass on `device` uses."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def replay(state: RandomState, device: torch.device) -> Iterator[None]:
    """Draw the random numbers of `state` within the context, and leave the generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], device)
        yield
