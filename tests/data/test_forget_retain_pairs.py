"""Pairs are a pure function of seed, epoch and index, and use the retain set evenly."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler

from unlearn_hf.data.forget_retain_pairs import PairedDataset


def rows(count: int, offset: int = 0) -> Dataset:
    return Dataset.from_dict({"input_ids": [[offset + i] for i in range(count)]})


def retain_of(pair: dict) -> int:
    return pair["retain"]["input_ids"][0]


def drawn(pairs: PairedDataset, epoch: int) -> list[int]:
    pairs.set_epoch(epoch)
    return [retain_of(pairs[i]) for i in range(len(pairs))]


SIZES = [(4, 4), (10, 3), (3, 10), (7, 1), (1, 7), (12, 40)]


@pytest.mark.parametrize(("forget", "retain"), SIZES)
def test_every_retain_row_once_per_cycle(forget, retain):
    pairs = PairedDataset(rows(forget), rows(retain), seed=3)
    epochs = 3 * retain // forget + 3
    sequence = [index for epoch in range(epochs) for index in drawn(pairs, epoch)]
    for start in range(0, len(sequence) - retain + 1, retain):
        assert sorted(sequence[start : start + retain]) == list(range(retain))
    assert max(Counter(sequence).values()) - min(Counter(sequence).values()) <= 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(-3, 2**40), st.integers(0, 5), st.randoms())
def test_order_of_access_does_not_matter(forget, retain, seed, epoch, random):
    first, second = (PairedDataset(rows(forget), rows(retain), seed) for _ in range(2))
    expected = drawn(first, epoch)
    second.set_epoch(epoch)
    order = list(range(forget))
    random.shuffle(order)
    assert {i: retain_of(second[i]) for i in order} == dict(enumerate(expected))


def test_seed_epoch_and_cycle_change_the_pairs():
    pairs = PairedDataset(rows(50), rows(50), seed=0)
    other = PairedDataset(rows(50), rows(50), seed=1)
    assert len({tuple(drawn(p, epoch)) for p in (pairs, other) for epoch in range(3)}) == 6
    assert drawn(pairs, 1) == drawn(pairs, 1)


def test_two_ranks_draw_different_retain_rows_over_two_epochs():
    pairs = PairedDataset(rows(20), rows(40), seed=5)
    seen = []
    for epoch in range(2):
        pairs.set_epoch(epoch)
        for rank in range(2):
            sampler = DistributedSampler(pairs, num_replicas=2, rank=rank, shuffle=True, seed=7)
            sampler.set_epoch(epoch)
            seen += [retain_of(pairs[i]) for i in sampler]
    assert sorted(seen) == list(range(40))


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_running_workers_see_a_new_epoch(context):
    pairs = PairedDataset(rows(8), rows(24), seed=2)
    loader = DataLoader(
        pairs,
        batch_size=2,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context=context,
        collate_fn=retain_indices,
    )
    for epoch in (0, 1, 2):
        expected = drawn(pairs, epoch)
        pairs.set_epoch(epoch)
        assert [index for batch in loader for index in batch] == expected


def retain_indices(batch: list[dict]) -> list[int]:
    return [retain_of(pair) for pair in batch]


@pytest.mark.parametrize(("forget", "retain"), SIZES)
@pytest.mark.parametrize("epochs", [1, 2])
def test_retain_rows_are_those_that_are_drawn(forget, retain, epochs):
    pairs = PairedDataset(rows(forget), rows(retain), seed=1)
    used = {index for epoch in range(epochs) for index in drawn(pairs, epoch)}
    assert set(pairs.retain_rows(epochs)) >= used
    if epochs * forget < retain:
        assert set(pairs.retain_rows(epochs)) == used


def test_indices_behave_like_a_sequence():
    pairs = PairedDataset(rows(5), rows(9))
    assert pairs[-1] == pairs[4]
    assert pairs[torch.tensor(2)] == pairs[2]
    with pytest.raises(IndexError):
        pairs[5]


@pytest.mark.parametrize(("forget", "retain", "name"), [(0, 3, "forget"), (3, 0, "retain")])
def test_empty_sets_are_refused(forget, retain, name):
    with pytest.raises(ValueError, match=f"{name}: the dataset is empty; pairs need at least one row of each"):
        PairedDataset(rows(forget), rows(retain))
