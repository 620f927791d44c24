"""Rows without padding have the likelihoods and gradients of padded ones."""

from __future__ import annotations

import pytest
import torch

from tests.test_likelihood import ARCHITECTURES, assert_same, build, expected_nll, gradients, ragged_batch
from unlearn_hf.likelihood import answer_likelihood


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_is_padded(name: str, attention: str) -> None:
    model, batch = build(name), ragged_batch()
    if name == "gemma2":
        attention = "eager"
    model.set_attn_implementation(attention)
    expected = expected_nll(model, batch)
    wanted = gradients(model, expected)
    found = answer_likelihood(model, batch, packed=True).nll
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_same(gradients(model, found), wanted)
