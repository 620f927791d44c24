"""What the model before unlearning says, off a file: the same run as with a copy, and the smaller is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import LoraConfig

from tests.small_runs import build_trainer, largest_difference, parameters
from tests.tiny_models import build_model
from unlearn_hf.reference import stored
from unlearn_hf.reference.model_before import ReferenceModel
from unlearn_hf.reference.stored import StoredReference


def trained(case: str, folder: Path, **options: Any) -> Any:
    trainer = build_trainer(case, folder, max_steps=5, **options)
    trainer.train()
    return trainer


@pytest.mark.parametrize("case", ["rmu-hidden", "graddiff-kl", "eupmu-undial-kl", "eupmu-dpo-kl"])
def test_a_file_and_a_copy_give_the_same_run(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = trained(case, tmp_path / "copy", reference_device="cpu")  # which asks for the copy
    assert isinstance(copied.reference, ReferenceModel)
    monkeypatch.setattr(stored, "bytes_of_copy", lambda *_: 2**40)
    column = trained(case, tmp_path / "column")
    assert isinstance(column.reference, StoredReference)
    assert largest_difference(parameters(copied.model), parameters(column.model)) < 2e-6
    (file,) = (tmp_path / "column" / "reference").glob("[lh]*.npy")
    lines = np.load(file)
    assert lines.shape[0] == column.reference.tokens
    assert lines.nbytes == column.reference.bytes  # the size that was told before

    def never(*_: object) -> None:
        raise AssertionError("the file is there")

    monkeypatch.setattr(StoredReference, "_write", never)
    again = trained(case, tmp_path / "column")
    assert largest_difference(parameters(again.model), parameters(column.model)) == 0.0
    with pytest.raises(AssertionError, match="the file is there"):  # another model has another file
        trained(case, tmp_path / "column", model=build_model(seed=3))


def test_the_smaller_one_is_taken_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(stored.logger, "warning", told.append)
    # 20 rows of hidden states are less than a layer, 20 rows of logits more than the model
    assert build_trainer("rmu-hidden", tmp_path).reference.strategy == "cached column"
    assert "cached column, 0.0" in told[-1]
    assert "answer tokens" in told[-1]
    small = build_model(hidden_size=8)
    assert build_trainer("graddiff-kl", tmp_path, model=small).reference.strategy == "model copy"
    assert "model copy, 0.0" in told[-1]
    assert "(a cached column: 0." in told[-1]
    adapter = LoraConfig(r=4, target_modules="all-linear")
    assert build_trainer("rmu-hidden", tmp_path, peft_config=adapter).reference.strategy == "disabled adapter"
    assert told[-1] == "The model before unlearning: disabled adapter, 0.00 MiB of memory."


def test_no_file_where_the_disk_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    assert build_trainer("rmu-hidden", tmp_path).reference.strategy == "model copy"
