"""Rows without padding have the likelihoods and gradients of padded ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AttentionInterface

from tests.likelihood.architectures import ARCHITECTURES, assert_same, build, expected_nll, gradients, ragged_batch
from unlearn_hf.likelihood.answers import answer_likelihood, largest_packing_error
from unlearn_hf.likelihood.packed_rows import SHORTEST_SHARED, can_share, flash_lengths, sdpa_by_sequence


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_is_padded(name: str, attention: str) -> None:
    model, batch = build(name), ragged_batch()
    if name == "gemma2":
        attention = "eager"
    model.set_attn_implementation(attention)
    if (name, attention) == ("opt", "eager"):  # counts positions by itself, from a mask that packed rows do not have
        assert largest_packing_error(model, batch) > 0.01
        return
    assert largest_packing_error(model, batch) < 1e-5
    expected = expected_nll(model, batch)
    wanted = gradients(model, expected)
    found = answer_likelihood(model, batch, packed=True).nll
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_same(gradients(model, found), wanted)


def with_common_beginning(length: int) -> dict[str, torch.Tensor]:
    """Rows that begin with the same tokens, unlabelled but for one row."""
    batch = ragged_batch()
    beginning = (torch.arange(length) + 2).expand(4, -1)
    labels = torch.full_like(beginning, -100)
    labels[2, 3:] = beginning[2, 3:]
    return {
        "input_ids": torch.cat([beginning, batch["input_ids"]], 1),
        "labels": torch.cat([labels, batch["labels"]], 1),
        "attention_mask": torch.cat([torch.ones_like(beginning), batch["attention_mask"]], 1),
    }


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_common_beginning_is_computed_once(name: str) -> None:
    model, batch = build(name), with_common_beginning(SHORTEST_SHARED + 3)
    model.set_attn_implementation("eager" if name == "gemma2" else "sdpa")
    expected = expected_nll(model, batch)
    wanted = gradients(model, expected)
    computed: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda module, ids, out: computed.append(ids[0].numel()))
    found = answer_likelihood(model, batch, packed=True).nll
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_same(gradients(model, found), wanted)
    alone = int(batch["attention_mask"].sum()) - 4  # the last token of a row predicts nothing
    assert computed == [alone if name == "gemma2" else alone - 3 * (SHORTEST_SHARED + 3)]


def test_dropout_tells_rows_apart() -> None:
    model = build("llama", attention_dropout=0.1)
    assert can_share(model.eval())
    assert not can_share(model.train())
    assert not can_share(build("gemma2"))


def test_rows_that_end_where_they_part() -> None:
    ids = torch.arange(2, 14).repeat(3, 1)
    ids[1, 10:] = 50
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
    batch["labels"][:, :9] = -100
    batch["labels"][0, 10:] = -100  # nothing of its own is left of the first row
    batch["labels"][2] = -100  # and nothing at all of the last
    model = build("llama")
    found = answer_likelihood(model, batch, packed=True)
    torch.testing.assert_close(found.nll, expected_nll(model, batch), rtol=1e-5, atol=1e-5)
    assert found.nll[2] == 0
    batch["labels"][:] = -100
    assert answer_likelihood(model, batch, packed=True).nll.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral", "gpt_neox"])
def test_flash_attention_is_told_the_lengths(name: str) -> None:
    """Its kernels are not here; what they would be told is, and that it is enough to compute the same."""
    model, batch = build(name), ragged_batch()
    expected = expected_nll(model, batch)
    wanted = gradients(model, expected)
    told: list[dict[str, Any]] = []

    def by_cumulative_lengths(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        told.append(options)
        assert mask is None
        ends, longest = options["cu_seq_lens_q"], options["max_length_q"]
        assert ends is options["cu_seq_lens_k"]
        assert longest == options["max_length_k"] == ends.diff().max()
        lengths = tuple(ends.diff().tolist())
        known = {name: options.get(name) for name in ("dropout", "scaling", "sliding_window")}
        return sdpa_by_sequence(module, query, key, value, None, sequence_lengths=lengths, **known)

    AttentionInterface.register("flash_attention_told", by_cumulative_lengths)
    model.config._attn_implementation_internal = "flash_attention_told"
    found = answer_likelihood(model, batch, packed=True).nll
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_same(gradients(model, found), wanted)
    ends = told[0]["cu_seq_lens_q"]
    assert ends.dtype == torch.int32
    assert type(told[0]["max_length_q"]) is int
    assert len(told) == 2  # layers
    assert told[1]["cu_seq_lens_q"] is ends
    assert ends.diff().tolist() == (batch["attention_mask"].sum(-1) - 1).tolist()
    assert "cu_seq_lens_q" not in flash_lengths(build(name), {})
