"""Token statistics: against numbers worked out by hand, and against the plain forward pass."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from unlearn_hf.data.collator import collate
from unlearn_hf.evaluation.token_scores import ScoredText, score_batch, token_statistics
from unlearn_hf.likelihood.answers import answer_likelihood

ANSWER = "Ada Moren"
CPU = torch.device("cpu")


def statistics(log: list[float], match: list[bool], standardised: list[float] | None = None) -> dict[str, float]:
    per_token = {
        "log": torch.tensor(log),
        "match": torch.tensor(match),
        "standardised": torch.tensor(standardised or log),
    }
    return token_statistics(per_token, -sum(log), ANSWER)


def test_by_hand() -> None:
    # Five answer tokens and the end of the text; 40 % of five are the two least likely: -3 and -2.
    found = statistics(
        [-1.0, -3.0, -0.5, -2.0, -0.25, -9.0],
        [True, False, True, True, True, False],
        [0.5, -1.0, 0.25, 2.0, -3.0, -50.0],
    )
    assert found["loss"] == pytest.approx(15.75 / 6)
    assert found["zlib"] == pytest.approx(15.75 / 6 / len(zlib.compress(b"Ada Moren")))
    assert found["min_k"] == pytest.approx(2.5)
    assert found["min_k_plus_plus"] == pytest.approx(2.0)
    assert found["exact_memorization"] == pytest.approx(4 / 5)
    assert found["extraction_strength"] == pytest.approx(1 - 2 / 5)  # from the third token on all are right


@pytest.mark.parametrize(
    ("match", "strength"),
    [
        ([True, True, True, True], 1.0),
        ([False, True, True, True], 1 - 1 / 4),
        ([True, False, False, True], 1 - 3 / 4),
        ([True, True, True, False], 0.0),  # no suffix is right
        ([False, False, False, False], 0.0),
    ],
)
@pytest.mark.parametrize("end", [True, False])
def test_extraction_strength_by_hand(match: list[bool], strength: float, end: bool) -> None:
    assert statistics([-1.0] * 5, [*match, end])["extraction_strength"] == pytest.approx(strength)


def test_min_k_takes_at_least_one_token() -> None:
    assert statistics([-1.5, -0.5, -7.0], [True] * 3)["min_k"] == pytest.approx(1.5)


def test_empty_answer_has_a_loss_and_nothing_else() -> None:
    assert statistics([-2.0], [False]).keys() == {"loss", "zlib"}


class Fixed(torch.nn.Module):
    """Gives the same logits at every position."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.head = torch.nn.Linear(1, len(logits), bias=False)
        self.head.weight.data = torch.tensor(logits)[:, None]

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        hidden = torch.ones(*input_ids.shape, 1)

        class Output:
            logits = self.head(hidden)

        return Output


def test_min_k_plus_plus_from_a_known_distribution() -> None:
    # Probabilities 0.5, 0.25, 0.25: mean log-probability -1.5 ln 2, variance 0.25 (ln 2)^2.
    model = Fixed([math.log(0.5), math.log(0.25), math.log(0.25)])
    text = ScoredText("a", [2, 0, 1, 0], [-100, 0, 1, 0], ANSWER, details=True)
    [found] = score_batch(model, [text], 0, CPU)
    ln2 = math.log(2)
    assert found["nll"] == pytest.approx((1 + 2 + 1) * ln2)
    assert found["tokens"] == 3
    assert found["min_k"] == pytest.approx(2 * ln2)  # one of two tokens, the end left out
    assert found["min_k_plus_plus"] == pytest.approx(-(-2 * ln2 + 1.5 * ln2) / (0.5 * ln2))
    assert found["exact_memorization"] == pytest.approx(0.5)
    assert found["extraction_strength"] == 0.0


def test_a_certain_model_divides_by_the_smallest_variance() -> None:
    [found] = score_batch(Fixed([60.0, 0.0, 0.0]), [ScoredText("a", [2, 0, 0], [-100, 0, 0], ANSWER, True)], 0, CPU)
    assert found["min_k_plus_plus"] == pytest.approx(0.0, abs=1e-3)
    assert found["extraction_strength"] == 1.0


def ragged() -> list[ScoredText]:
    generator = torch.Generator().manual_seed(0)
    texts = []
    for index, length in enumerate((5, 9, 7, 12)):
        ids = torch.randint(6, 300, (length,), generator=generator).tolist()
        texts.append(ScoredText(str(index), ids, [-100] * 2 + ids[2:], "x", details=index % 2 == 0))
    return texts


def test_against_the_plain_forward_pass(tiny_model: LlamaForCausalLM) -> None:
    tiny_model.eval()
    with torch.no_grad():
        found = score_batch(tiny_model, ragged(), 1, CPU)
        for text, result in zip(ragged(), found, strict=True):
            logits = tiny_model(torch.tensor([text.input_ids])).logits[0].log_softmax(-1)
            chosen = [logits[at - 1, text.input_ids[at]].item() for at in range(2, text.length)]
            assert result["nll"] == pytest.approx(-sum(chosen), abs=1e-4)
            assert result["tokens"] == len(chosen)
            assert ("min_k" in result) == text.details
            if text.details:
                lowest = sorted(chosen[:-1])[: max(1, int(0.4 * (len(chosen) - 1)))]
                assert result["min_k"] == pytest.approx(-sum(lowest) / len(lowest), abs=1e-5)


def test_left_or_right_padding(tiny_model: LlamaForCausalLM) -> None:
    tiny_model.eval()
    rows = [{"input_ids": text.input_ids, "labels": text.labels} for text in ragged()]
    with torch.no_grad():
        right, left = (answer_likelihood(tiny_model, collate(rows, 1, side)) for side in ("right", "left"))
    assert (right.nll / right.tokens - left.nll / left.tokens).abs().max() < 1e-5


def test_pad_token_may_be_the_end_token(tiny_model: LlamaForCausalLM) -> None:
    tiny_model.eval()
    texts = [
        ScoredText("a", [5, 9, 8, 1], [-100, 9, 8, 1]),
        ScoredText("b", [5, 9, 8, 7, 6, 1], [-100, 9, 8, 7, 6, 1]),
    ]
    with torch.no_grad():
        together = score_batch(tiny_model, texts, 1, CPU)
        [alone] = score_batch(tiny_model, texts[:1], 1, CPU)
    assert together[0]["tokens"] == alone["tokens"] == 3
    assert together[0]["nll"] == pytest.approx(alone["nll"], abs=1e-5)


def test_logits_exist_at_answer_positions_only(tiny_model: LlamaForCausalLM) -> None:
    seen: list[int] = []
    hook: Callable[..., None] = lambda _module, arguments, _output: seen.append(arguments[0].shape[-2])  # noqa: E731
    tiny_model.lm_head.register_forward_hook(hook)
    with torch.no_grad():
        score_batch(tiny_model, ragged(), 1, CPU)
    assert seen == [sum(text.length - 2 for text in ragged())]
