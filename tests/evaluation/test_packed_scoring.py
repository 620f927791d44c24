"""Packed rows: what they look like, that likelihoods are those of separate rows, and which models can."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from tests.tiny_models import build_model
from unlearn_hf.evaluation.packed_scoring import TextGroup, can_pack, group_texts, pack, score_groups
from unlearn_hf.evaluation.token_scores import ScoredText, score_batch

CPU = torch.device("cpu")
PROMPT = [0, 11, 12, 13]


def text(key: str, answer: list[int], prompt: list[int] = PROMPT, details: bool = False) -> ScoredText:
    return ScoredText(key, prompt + answer, [-100] * len(prompt) + answer, "x", details)


def texts() -> list[ScoredText]:
    return [
        text("forget/0/answer/0", [21, 22, 23, 1], details=True),
        text("forget/0/paraphrase/0", [24, 22, 1]),
        text("forget/0/perturbed/0", [21, 26, 27, 28, 29, 1]),
        text("forget/1/answer/0", [31, 32, 1], [0, 40, 41, 42, 43, 44], details=True),
        text("forget/1/paraphrase/0", [33, 1], [0, 40, 41, 42, 43, 44]),
        text("holdout/1/answer/0", [51, 52, 1], [0, 60]),
    ]


def test_rows_by_hand() -> None:
    first, second = text("a/0/answer/0", [21, 22, 1]), text("a/0/paraphrase/0", [21, 23, 24, 1])
    [group] = group_texts([first, second])
    assert (group.length, group.key) == (8, "a/0/answer/0+1")
    assert group.tree.paths == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 6, 7]]
    batch = pack([group, TextGroup((text("a/1/answer/0", [1]),))], 1)
    # The question and the first word are there once; the ends predict nothing and are not there.
    assert batch["input_ids"].tolist() == [[0, 11, 12, 13, 21, 22, 23, 24], [0, 11, 12, 13, 1, 1, 1, 1]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 5, 6], [0, 1, 2, 3, 0, 0, 0, 0]]
    seen = batch["attention_mask"][0, 0]
    assert seen[5].nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert seen[7].nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert batch["attention_mask"].any(-1).all()


def test_groups_follow_rows_and_beginnings() -> None:
    assert [len(group.texts) for group in group_texts(texts())] == [3, 2, 1]
    assert [len(group.texts) for group in group_texts(texts(), packed=False)] == [1] * 6
    nothing_shared = [text("a/0/answer/0", [5, 1], [7]), text("a/0/perturbed/0", [5, 1], [8])]
    assert len(group_texts(nothing_shared)) == 2
    long = [text(f"a/0/perturbed/{number}", [number + 5, *range(100, 600), 1]) for number in range(3)]
    assert [len(group.texts) for group in group_texts(long)] == [2, 1]


def test_equal_texts_and_beginnings_of_one_another() -> None:
    model = build_model().eval()
    same = [text("a/0/answer/0", [5, 6, 1], details=True), text("a/0/paraphrase/0", [5, 6, 1], details=True)]
    shorter = text("a/0/perturbed/0", [5, 6], details=True)
    [group] = group_texts([*same, shorter])
    assert group.length == 6
    with torch.no_grad():
        [found] = score_groups(model, [group], 1, CPU)
        for one in group.texts:
            assert found[one.key] == pytest.approx(score_batch(model, [one], 1, CPU)[0], rel=1e-5, abs=1e-5)


def models() -> dict[str, Any]:
    torch.manual_seed(0)
    eager = build_model()
    eager.set_attn_implementation("eager")
    sizes: dict[str, Any] = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 1}
    return {
        "llama": build_model(),
        "llama eager": eager,
        "gpt2": GPT2LMHeadModel(GPT2Config(**sizes, n_embd=32, n_layer=2, n_head=2, n_positions=64)),
        "half precision": build_model().to(torch.bfloat16),
    }


@pytest.mark.parametrize("name", ["llama", "llama eager", "gpt2", "half precision"])
def test_likelihoods_are_those_of_separate_rows(name: str) -> None:
    model = models()[name].eval()
    close = 0.3 if name == "half precision" else 1e-5
    groups = group_texts(texts())
    with torch.no_grad():
        assert can_pack(model, groups, 1, CPU)
        packed = {key: score for found in score_groups(model, groups, 1, CPU) for key, score in found.items()}
        for one in texts():
            [alone] = score_batch(model, [one], 1, CPU)
            mine = packed[one.key]
            assert mine.keys() == alone.keys()
            assert mine["tokens"] == alone["tokens"]
            assert mine["nll"] / mine["tokens"] == pytest.approx(alone["nll"] / alone["tokens"], abs=close)
            if name != "half precision":
                assert mine == pytest.approx(alone, rel=1e-5, abs=1e-5)


class Deaf(LlamaForCausalLM):
    """Does not heed the mask that it is given, as a recurrent model would not."""

    def forward(self, *arguments: Any, position_ids: Any = None, **named: Any) -> Any:
        if named.get("attention_mask") is not None and named["attention_mask"].dim() == 4:
            named["attention_mask"] = None
        return super().forward(*arguments, **named)


class Strict(LlamaForCausalLM):
    """Takes masks of two dimensions only."""

    def forward(self, *arguments: Any, position_ids: Any = None, **named: Any) -> Any:
        _, _ = named["attention_mask"].shape
        return super().forward(*arguments, **named)


@pytest.mark.parametrize("kind", [Deaf, Strict])
def test_models_that_cannot_are_found_out(kind: type[LlamaForCausalLM]) -> None:
    model = kind(build_model().config).eval()
    with torch.no_grad():
        assert not can_pack(model, group_texts(texts()), 1, CPU)


def test_sliding_windows_must_hold_the_row() -> None:
    for window, able in ((8, False), (64, True)):
        config = MistralConfig(
            vocab_size=400,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            sliding_window=window,
        )
        with torch.no_grad():
            assert can_pack(MistralForCausalLM(config).eval(), group_texts(texts()), 1, CPU) is able


def test_nothing_to_pack(tiny_model: LlamaForCausalLM) -> None:
    assert not can_pack(tiny_model, [TextGroup((texts()[0],))], 1, CPU)
