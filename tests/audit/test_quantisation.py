"""Rounded weights against examples made by hand, and against bitsandbytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from tests.tiny_models import build_model
from unlearn_hf.audit.quantisation import NF4_LEVELS, bitsandbytes_nf4, nf4, quantise, round_to_nearest


def test_nearest_level_by_hand() -> None:
    weight = torch.tensor([[7.0, -3.4, 0.6, 0.0], [0.0, 0.0, 0.0, 0.0], [-1.4, 0.29, 0.31, 0.7]])
    # Seven steps to the largest magnitude of a row: 1, nothing, and 0.2.
    expected = torch.tensor([[7.0, -3.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [-1.4, 0.2, 0.4, 0.8]])
    torch.testing.assert_close(round_to_nearest(weight, 4), expected)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_error_is_at_most_half_a_step(bits: int) -> None:
    weight = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    half = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1) / 2
    assert ((round_to_nearest(weight, bits) - weight).abs() <= half * 1.0001).all()


def test_nf4_by_hand() -> None:
    # Two blocks of three, the second cut short: scales 2 and 0.5.
    weight = torch.tensor([[2.0, -1.4, 0.1], [0.5, 0.28, 0.0]])[:, :3].reshape(-1)[:5]
    expected = torch.tensor([2.0, 2 * -0.6961928, 2 * 0.0795803, 0.5, 0.5 * 0.562617])
    torch.testing.assert_close(nf4(weight, block=3), expected)


def test_the_table_is_symmetric_at_its_ends_and_has_zero() -> None:
    assert len(NF4_LEVELS) == 16
    assert list(NF4_LEVELS) == sorted(NF4_LEVELS)
    assert {-1.0, 0.0, 1.0} <= set(NF4_LEVELS)
    levels = torch.tensor(NF4_LEVELS)
    torch.testing.assert_close(nf4(levels), levels)  # a level rounds to itself


def test_bitsandbytes_rounds_alike() -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: NOT compared with it")
    weight = torch.randn(32, 96, generator=torch.Generator().manual_seed(0))
    ours, theirs = nf4(weight), bitsandbytes_nf4(weight)
    differing = (ours - theirs).abs() > 1e-6  # a weight between two levels may fall to either side
    assert differing.float().mean() < 1e-3


def test_the_head_and_what_is_no_linear_layer_stay() -> None:
    model, before = build_model(), build_model()
    count = quantise(model, nf4)
    changed = {
        name
        for (name, now), (_, then) in zip(model.named_parameters(), before.named_parameters(), strict=True)
        if not torch.equal(now, then)
    }
    assert changed == {name for name, _ in before.named_parameters() if "proj" in name}
    assert count == sum(each.numel() for name, each in before.named_parameters() if "proj" in name)


def test_transposed_layers_round_by_output() -> None:
    torch.manual_seed(0)
    turned, plain = Conv1D(3, 8), nn.Linear(8, 3)
    nn.init.normal_(turned.weight)
    plain.weight.data.copy_(turned.weight.data.T)
    for each in (turned, plain):
        quantise(nn.Sequential(each), lambda weight: round_to_nearest(weight, 4))
    torch.testing.assert_close(turned.weight.T, plain.weight)


def test_bits_that_are_none() -> None:
    with pytest.raises(ValueError, match="bits: 1 is not from 2 to 8"):
        round_to_nearest(torch.ones(1, 1), 1)
