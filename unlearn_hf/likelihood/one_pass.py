"""One pass of a model over many items: sorted by length, shared out over ranks, with progress, resumable."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from tqdm.auto import tqdm

from unlearn_hf.models.sharding import reshard, shards

_KEPT_AT_ONCE = 64
"""Results of a batch after which they are kept."""


class Item(Protocol):
    """Something to run through the model."""

    @property
    def key(self) -> str:
        """Unique and stable, so that results on disk are found again."""
        ...

    @property
    def length(self) -> int:
        """Tokens it takes."""
        ...


class PartialResults:
    """Results of an evaluation that may be interrupted: one JSON line per item, one file per rank.

    Args:
        folder: where the files are kept until the evaluation is complete; `None` keeps nothing.
        fingerprint: of everything that results depend on beside the items themselves (model, precision, settings,
            versions); results under another fingerprint are never read.
    """

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self.folder = None if folder is None else folder / "partial" / fingerprint[:32]

    def read(self) -> dict[str, Any]:
        """All complete lines of all ranks."""
        found: dict[str, Any] = {}
        if self.folder is None or not self.folder.is_dir():
            return found
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
                # An interruption cuts the last line, a crash of the machine may spoil any; its item is computed again.
                if line.endswith("\n"):
                    with suppress(ValueError, TypeError):
                        key, value = json.loads(line)
                        found[key] = value
        return found

    def append(self, name: str, rank: int, results: Sequence[tuple[str, Any]]) -> None:
        """Keep the results of one batch."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}-{rank}.jsonl"
        with path.open("ab") as file:
            file.truncate(path.read_bytes().rfind(b"\n") + 1)  # without a last line that an interruption cut
            file.write("".join(json.dumps(result) + "\n" for result in results).encode())

    def remove(self) -> None:
        """Delete the files, those of other fingerprints too, once an evaluation supersedes them."""
        if self.folder is None or not self.folder.parent.is_dir():
            return
        for folder in filter(Path.is_dir, list(self.folder.parent.iterdir())):
            for path in folder.glob("*.jsonl"):
                path.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()
        if not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()


def _identity(item: Item) -> str:
    """Name of a result on disk: with a hash of the whole item (its tokens, settings ...), not of its key alone."""
    return f"{item.key} {hashlib.sha256(repr(item).encode()).hexdigest()[:32]}"


def results_of_all_ranks(
    items: Sequence[Item], partial: PartialResults, accelerator: Accelerator | None
) -> dict[str, Any]:
    """Results of these very items that are on disk, by key, the same for every rank.

    One rank may have read the folder when another had added to it already.
    """
    if partial.folder is None:
        return {}
    found = partial.read()
    if accelerator is not None and accelerator.num_processes > 1:
        found = dict(gather_object(list(found.items())))
    identities = {item.key: _identity(item) for item in items}
    return {key: found[identity] for key, identity in identities.items() if identity in found}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        reshard(model)


def run_pass(
    name: str,
    items: Sequence[Item],
    compute: Callable[[list[Any]], Iterable[Any]],
    *,
    batch_size: int,
    token_budget: int,
    accelerator: Accelerator | None,
    partial: PartialResults,
    description: str,
) -> dict[str, Any]:
    """Run `compute` over all items once.

    Args:
        name: of the pass, for files.
        items: what to run; keys must be unique, and `repr` must show everything that a result depends on.
        compute: maps a batch of items to one JSON-ready result each, in order; they are kept as they come.
        batch_size: most items in a batch.
        token_budget: most padded tokens in a batch (a longer item goes alone).
        accelerator: ranks take turns; `None` for a single process.
        partial: results already there are not computed again; a batch of which one is missing is computed as a whole,
            so that an interrupted pass has the batches, and thus the rounding, of one that was not.
        description: label of the progress bar.

    Returns:
        Results by key; every rank gets all.
    """
    rank, ranks = (accelerator.process_index, accelerator.num_processes) if accelerator is not None else (0, 1)
    done = results_of_all_ranks(items, partial, accelerator)
    longest_first = sorted(items, key=lambda item: (-item.length, item.key))
    batches = [
        batch
        for batch in _batches(longest_first, batch_size, token_budget)
        if any(item.key not in done for item in batch)
    ]
    mine = batches[rank::ranks]
    # A sharded model needs every rank in every forward pass: one without a batch repeats another's, for nothing.
    repeated = batches[:1] * (math.ceil(len(batches) / ranks) - len(mine)) if shards(accelerator) else []
    # accelerate adds it to the forward of a prepared model alone, not to what an adapter's `generate` calls. Sharding
    # has a precision of its own.
    autocast = accelerator.autocast if accelerator is not None and not shards(accelerator) else nullcontext
    computed: list[tuple[str, Any]] = []

    def keep(fresh: list[tuple[Any, Any]]) -> None:
        partial.append(name, rank, [(_identity(item), result) for item, result in fresh])
        computed.extend((item.key, result) for item, result in fresh)

    # `disable=False` would outvote the environment's TQDM_DISABLE.
    silent = {"disable": True} if rank != 0 else {}
    with tqdm(total=sum(map(len, mine)), desc=description, leave=False, **silent) as progress:
        for batch in mine:
            fresh: list[tuple[Any, Any]] = []
            with autocast():
                for item, result in zip(batch, compute(batch), strict=True):
                    fresh.append((item, result))
                    progress.update()
                    if len(fresh) == _KEPT_AT_ONCE:
                        keep(fresh)
                        fresh = []
            keep(fresh)
        for batch in repeated:
            with autocast():
                list(compute(batch))
    if ranks > 1:
        computed = gather_object(computed)
    return done | dict(computed)


def _batches(items: Sequence[Item], batch_size: int, token_budget: int) -> list[list[Any]]:
    """Cut length-sorted items (longest first) into batches within both limits."""
    batches: list[list[Any]] = []
    for item in items:
        if (
            batches
            and len(batches[-1]) < batch_size
            and (len(batches[-1]) + 1) * batches[-1][0].length <= token_budget
        ):
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches
