"""What the model before unlearning says of the rows, in a file; and the choice between that and a copy."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers.utils import logging

from unlearn_hf.common.files import whole_file
from unlearn_hf.data.labels import label_counts
from unlearn_hf.likelihood.one_pass import evaluating
from unlearn_hf.models.fingerprint import model_fingerprint
from unlearn_hf.models.sharding import shards
from unlearn_hf.models.wrappers import causal_model, parameters_up_to
from unlearn_hf.reference.model_before import ReferenceModel, output_at_labels, rows_fingerprint
from unlearn_hf.reference.nll_column import RunWithReference
from unlearn_hf.version import __version__

logger = logging.get_logger(__name__)

ROW = "reference_row"
_BYTES = 4  # float32, whatever the model computes in: nothing is rounded


class _Trainer(RunWithReference, Protocol):
    """What the choice needs to know of a run."""

    model: Any
    reference_columns: Any

    def is_world_process_zero(self) -> bool: ...


class StoredReference:
    """Gives logits or hidden states of the model before unlearning, off a file; the calls are `ReferenceModel`'s.

    The file has a line of float32 numbers for each answer token of the rows that the run uses, in full: no top-k, so
    that losses are exact. Its name is a fingerprint of all that it depends on (model, rows, layer, precision, device,
    versions), so that a run that is resumed, or another of the same model and rows, finds it again.

    Args:
        trainer: the run.
        compared: for each set whose rows are compared the layer whose output is, or `None` for logits.

    Attributes:
        strategy: `"cached column"`.
        tokens: answer tokens of all sets.
        bytes: size on disk.
    """

    strategy = "cached column"

    def __init__(self, trainer: _Trainer, compared: Mapping[str, int | None]) -> None:
        self.trainer = trainer
        self.folder = Path(trainer.args.reference_cache or Path(str(trainer.args.output_dir)) / "reference")
        self._rows = {name: trainer.reference_columns.rows_used(name) for name in sorted(compared)}
        self._layers = {name: compared[name] for name in self._rows}
        self._files: dict[int | None, Any] = {}
        sets = trainer.train_dataset.sets
        self._first = dict(zip(self._rows, np.cumsum([0, *(len(sets[name]) for name in self._rows)]), strict=False))
        total = sum(len(sets[name]) for name in self._rows)
        self._counts, self._starts = np.zeros(total, np.int64), np.full(total, -1)
        self._lines = dict.fromkeys(self._layers.values(), 0)
        for name, rows in self._rows.items():
            for row in rows:
                count = int(label_counts(torch.as_tensor(sets[name][row]["labels"])[None]))
                place, layer = self._first[name] + row, self._layers[name]
                self._counts[place], self._starts[place] = count, self._lines[layer]
                self._lines[layer] += count
        self.tokens = sum(self._lines.values())
        self.bytes = sum(count * line_bytes(trainer.model, layer) for layer, count in self._lines.items())

    def measure(self, model: nn.Module) -> None:
        """Ask `model`, the one before unlearning, once; the sets get a column that says where their lines are."""
        if self._files:
            return
        accelerator, sets = self.trainer.accelerator, self.trainer.train_dataset.sets
        if next(model.parameters()).device != accelerator.device:
            model.to(accelerator.device)
        facts: tuple[Any, ...] = (
            model_fingerprint(accelerator.unwrap_model(model)),
            [(name, rows, rows_fingerprint(sets[name][row] for row in rows)) for name, rows in self._rows.items()],
            (accelerator.mixed_precision, accelerator.device.type),
            (__version__, torch.__version__, transformers.__version__),
        )
        for layer in self._lines:
            key = hashlib.sha256(repr((facts, layer, self._layers)).encode()).hexdigest()[:32]
            path = self.folder / f"{'logits' if layer is None else 'hidden'}-{key}.npy"
            if not path.exists():
                with whole_file(path) as partial, evaluating(model), accelerator.autocast():
                    self._write(model, layer, partial)
            self._files[layer] = np.load(path, mmap_mode="r")
        for name, first in self._first.items():
            sets[name] = sets[name].add_column(ROW, list(range(first, first + len(sets[name]))))

    def _write(self, model: nn.Module, layer: int | None, path: Path) -> None:
        lines = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.float32, shape=(self._lines[layer], line_bytes(model, layer) // _BYTES)
        )
        size = self.trainer.args.per_device_eval_batch_size
        for name in (each for each, own in self._layers.items() if own == layer):
            rows, dataset = self._rows[name], self.trainer.train_dataset.sets[name]
            for start in tqdm(range(0, len(rows), size), desc=f"Model before unlearning ({name} set)", leave=False):
                chosen = rows[start : start + size]
                found = output_at_labels(model, self.trainer.data_collator([dataset[row] for row in chosen]), layer)
                first = self._starts[self._first[name] + chosen[0]]
                lines[first : first + len(found)] = found.float().cpu().numpy()
        lines.flush()

    def _places(self, batch: Mapping[str, Tensor]) -> np.ndarray:
        """The lines of the label positions of a batch, `[N]`."""
        rows = batch[ROW].cpu().numpy()
        assert (self._starts[rows] >= 0).all(), "a row that the run was not expected to use"
        return np.concatenate([np.arange(self._counts[row]) + self._starts[row] for row in rows])

    def logits(self, model: nn.Module, batch: Mapping[str, Tensor], packed: bool = False) -> Callable[[slice], Tensor]:
        """See `ReferenceModel.logits`; only the lines of a chunk are read at a time."""
        places = self._places(batch)
        return lambda rows: torch.from_numpy(self._files[None][places[rows]]).to(batch["labels"].device)

    def hidden(self, model: nn.Module, batch: Mapping[str, Tensor], layer: int, packed: bool = False) -> Tensor:
        """See `ReferenceModel.hidden`."""
        return torch.from_numpy(self._files[layer][self._places(batch)]).to(batch["labels"].device)


def choose_reference(
    trainer: _Trainer, compared: Mapping[str, int | None], layers: int | None
) -> ReferenceModel | StoredReference:
    """The cheapest way to the model before unlearning, told in a line: a disabled adapter, a file, or a frozen copy.

    Under an adapter there is nothing to choose. Else the smaller of file and copy is taken, unless
    `reference_device` or `reference_dtype` ask for the copy. With several processes it is the copy.

    Args:
        trainer: the run, its model not trained yet.
        compared: see `StoredReference`.
        layers: how many layers a copy needs; `None` for all.
    """
    args, model = trainer.args, trainer.model
    share = not shards(trainer.accelerator)
    asked = args.reference_device is not None or args.reference_dtype is not None
    column, told = None, ""
    if not hasattr(model, "peft_config"):
        copied = bytes_of_copy(model, layers)
        told = f"{_mebibytes(copied)} of memory"
        if causal_model(model) is not None and share and trainer.accelerator.num_processes == 1 and not asked:
            column = StoredReference(trainer, compared)
            size = f"{_mebibytes(column.bytes)} on disk for {column.tokens} answer tokens"
            there = next(
                each for each in (column.folder.absolute(), *column.folder.absolute().parents) if each.exists()
            )
            if column.bytes < min(copied, shutil.disk_usage(there).free):
                logger.warning(
                    f"The model before unlearning: cached column, {size} in {column.folder} (a copy: {told})."
                )
                return column
            told += f" (a cached column: {size})"
    dtype = getattr(torch, args.reference_dtype) if args.reference_dtype else None
    reference = ReferenceModel(model, args.reference_device, dtype, share, layers)
    if reference.strategy != "model copy" or asked:
        told = f"{_mebibytes(reference.copied)} of memory"
    if trainer.is_world_process_zero():
        logger.warning(f"The model before unlearning: {reference.strategy}, {told}.")
    return reference


def line_bytes(model: nn.Module, layer: int | None) -> int:
    """What the file has for a token: the hidden state after `layer`, or (`None`) the logits."""
    inner: Any = causal_model(model)
    head, width = inner.get_output_embeddings().weight, inner.config.get_text_config().hidden_size
    return _BYTES * (head.shape[0] if layer is None else width)


def bytes_of_copy(model: nn.Module, layers: int | None) -> int:
    """What a frozen copy takes that shares what is not trained."""
    return sum(each.nbytes for each in parameters_up_to(model, layers) if each.requires_grad)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.{0 if size >= 2**20 else 2}f} MiB"
