"""Masks come from lengths; the pad id is an ordinary token inside a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearn_hf.data.collator import UnlearningCollator, collate

PAD = 1
# The pad token (which is also the end-of-sequence token) stands inside and at the end of rows.
LONG = {"input_ids": [5, PAD, 6, 7, PAD], "labels": [-100, -100, 6, 7, PAD]}
SHORT = {"input_ids": [PAD, 8, PAD], "labels": [-100, 8, PAD]}


def test_right_padding():
    batch = collate([LONG, SHORT], PAD)
    assert batch["input_ids"].tolist() == [[5, PAD, 6, 7, PAD], [PAD, 8, PAD, PAD, PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 6, 7, PAD], [-100, 8, PAD, -100, -100]]
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert all(value.dtype == torch.int64 for value in batch.values())


def test_left_padding():
    batch = collate([{"input_ids": [PAD, 8]}, {"input_ids": LONG["input_ids"]}], PAD, padding_side="left")
    assert batch["input_ids"].tolist() == [[PAD, PAD, PAD, PAD, 8], [5, PAD, 6, 7, PAD]]
    assert batch["attention_mask"].tolist() == [[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]]
    assert batch["position_ids"].tolist() == [[0, 0, 0, 0, 1], [0, 1, 2, 3, 4]]


def test_scalar_columns_become_tensors():
    extra = [
        {**SHORT, "index": 3, "reference_nll": 1.5, "text": "left out", "loss": np.float32(2.0), "rank": np.int64(4)},
        {**LONG, "index": 4, "reference_nll": 2.5, "text": "left out", "loss": np.float32(3.0), "rank": np.int64(5)},
    ]
    batch = collate(extra, PAD)
    assert batch["index"].tolist() == [3, 4]
    assert batch["reference_nll"].tolist() == [1.5, 2.5]
    assert batch["loss"].dtype == batch["reference_nll"].dtype == torch.float32
    assert batch["rank"].dtype == batch["index"].dtype == torch.int64
    assert "text" not in batch


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=6))
def test_rows_come_back_from_either_side(sequences):
    examples = [{"input_ids": ids, "labels": ids} for ids in sequences]
    for side in ("right", "left"):
        batch = collate(examples, PAD, padding_side=side)
        for row, ids in enumerate(sequences):
            real = batch["attention_mask"][row].bool()
            assert batch["input_ids"][row][real].tolist() == batch["labels"][row][real].tolist() == ids
            assert (batch["labels"][row][~real] == -100).all()


def test_pairs_and_plain_rows():
    collator = UnlearningCollator(PAD)
    pairs = collator([{"forget": LONG, "retain": SHORT}, {"forget": SHORT, "retain": SHORT}])
    assert {name: batch["input_ids"].shape for name, batch in pairs.items()} == {"forget": (2, 5), "retain": (2, 3)}
    assert collator([LONG, SHORT])["input_ids"].shape == (2, 5)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="examples: a batch needs at least one row"):
        collate([], PAD)
