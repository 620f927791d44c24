"""What the model says before unlearning, as a column of the rows whose objective compares with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import torch

from unlearn_hf.models.sharding import shards
from unlearn_hf.reference.model_before import reference_nll, rows_fingerprint

COLUMN = "reference_nll"


class RunWithReference(Protocol):
    """What the columns need to know of a run."""

    args: Any
    accelerator: Any
    train_dataset: Any
    data_collator: Any

    @property
    def sets_with_reference(self) -> set[str]:
        """The sets whose rows need that column."""


class ReferenceColumns:
    """Adds the column `reference_nll` to the sets that need it, and saves it with every checkpoint.

    A resumed run takes the saved values: its model is not the one before unlearning any more.
    """

    def __init__(self, trainer: RunWithReference) -> None:
        self.trainer = trainer
        self._saved: dict[str, Any] = {}

    def measure(self, model: torch.nn.Module) -> None:
        """Ask `model`, the one before unlearning, about the rows that a saved column does not cover."""
        trainer, args = self.trainer, self.trainer.args
        pairs = trainer.train_dataset
        for name in sorted(trainer.sets_with_reference):
            dataset, rows = pairs.sets[name], self.rows_used(name)
            if COLUMN in dataset.column_names:
                continue
            nll = self._saved_values(name, dataset, rows)
            if nll is None:
                if not shards(trainer.accelerator) and next(model.parameters()).device != args.device:
                    model.to(args.device)
                nll = reference_nll(
                    model,
                    dataset,
                    rows,
                    trainer.data_collator,
                    batch_size=args.per_device_eval_batch_size,
                    accelerator=trainer.accelerator,
                    cache=Path(args.reference_cache or Path(str(args.output_dir)) / "reference"),
                    description=f"Reference likelihoods ({name} set)",
                )
            pairs.sets[name] = dataset.add_column(COLUMN, nll.tolist())

    def rows_used(self, name: str) -> list[int]:
        """The rows of a set that the run uses: of those to keep it may not come to all."""
        args, pairs = self.trainer.args, self.trainer.train_dataset
        if name != "retain" or args.max_steps > 0:
            return list(range(len(pairs.sets[name])))
        rows: list[int] = pairs.retain_rows(math.ceil(args.num_train_epochs))
        return rows

    def _saved_values(self, name: str, dataset: Any, rows: list[int]) -> torch.Tensor | None:
        saved = self._saved.get(name)
        if saved is None or len(saved["nll"]) != len(dataset) or saved["rows"] != rows_fingerprint(dataset):
            return None
        return saved["nll"] if not saved["nll"][rows].isnan().any() else None

    def state_dict(self) -> dict[str, Any]:
        """The columns, with a fingerprint of their rows."""
        state = {}
        for name, dataset in self.trainer.train_dataset.sets.items():
            if COLUMN in dataset.column_names:
                nll = torch.tensor(dataset[COLUMN][:], dtype=torch.float32)
                state[name] = {"rows": rows_fingerprint(dataset), "nll": nll}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the columns of a checkpoint, for rows that are still the same."""
        self._saved = state
