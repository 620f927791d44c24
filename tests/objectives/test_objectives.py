"""Closed forms of every objective."""

from __future__ import annotations

import math

import pytest
import torch

from unlearn_hf.likelihood.answers import AnswerLikelihood, answer_likelihood
from unlearn_hf.objectives import FORGET_OBJECTIVES, RETAIN_OBJECTIVES


def likelihood(nll: list[float], tokens: list[int], reference: list[float] | None = None) -> AnswerLikelihood:
    index = torch.repeat_interleave(torch.arange(len(nll)), torch.tensor(tokens))
    return AnswerLikelihood(
        token_nll=torch.cat([torch.full((t,), n / t) for n, t in zip(nll, tokens, strict=True)]),
        sequence_index=index,
        nll=torch.tensor(nll, requires_grad=True),
        tokens=torch.tensor(tokens),
        targets=torch.zeros(sum(tokens), dtype=torch.long),
        reference_nll=torch.tensor(reference) if reference else None,
    )


def test_gradient_ascent_is_minus_the_nll() -> None:
    assert FORGET_OBJECTIVES["ga"](likelihood([2.0, 3.0], [1, 4])).tolist() == [-2.0, -3.0]


def test_nll_is_the_nll() -> None:
    assert RETAIN_OBJECTIVES["nll"](likelihood([2.0, 3.0], [1, 4])).tolist() == [2.0, 3.0]


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_npo_closed_form(beta: float) -> None:
    values = FORGET_OBJECTIVES["npo"](likelihood([2.0, 7.0], [1, 4], [5.0, 1.0]), beta=beta)
    expected = [2 / beta * math.log(1 + math.exp(-beta * d)) for d in (-3.0, 6.0)]
    assert values.tolist() == pytest.approx(expected, rel=1e-6)


def test_npo_starts_at_two_over_beta_log_two_with_the_gradient_of_ascent() -> None:
    inputs = likelihood([2.0, 3.0], [1, 4], [2.0, 3.0])
    value = FORGET_OBJECTIVES["npo"](inputs)
    assert value.tolist() == pytest.approx([20 * math.log(2)] * 2)
    (gradient,) = torch.autograd.grad(value.sum(), inputs.nll)
    assert gradient.tolist() == pytest.approx([-1.0, -1.0])


def test_npo_without_reference_says_so() -> None:
    with pytest.raises(ValueError, match="reference_nll"):
        FORGET_OBJECTIVES["npo"](likelihood([1.0], [1]))


def test_simnpo_closed_form() -> None:
    values = FORGET_OBJECTIVES["simnpo"](likelihood([2.0, 6.0], [4, 2]), beta=2.5, delta=0.25)
    expected = [2 / 2.5 * math.log(1 + math.exp(-2.5 * (m - 0.25))) for m in (0.5, 3.0)]
    assert values.tolist() == pytest.approx(expected, rel=1e-6)


def test_kl_closed_form_and_zero_against_itself() -> None:
    p, q = [0.7, 0.2, 0.1], [0.5, 0.25, 0.25]
    logits = torch.tensor([p, p, q]).log()
    reference = torch.tensor([q, p, p]).log() + 3.0  # a constant does not change a distribution

    def divergence(reference: list[float], model: list[float]) -> float:
        return sum(a * math.log(a / b) for a, b in zip(reference, model, strict=True))

    kl = RETAIN_OBJECTIVES["kl"]
    assert kl.token_function is not None
    inputs = likelihood([1.0, 1.0], [1, 2])
    inputs.token_values["objective"] = kl.token_function(logits, torch.zeros(3), reference, None)
    assert kl(inputs).tolist() == pytest.approx([divergence(q, p), divergence(p, p) + divergence(p, q)], abs=1e-6)


@pytest.mark.parametrize("name", ["ga", "npo", "simnpo"])
def test_every_forget_objective_pushes_the_likelihood_down(name: str) -> None:
    inputs = likelihood([2.0, 3.0], [2, 2], [2.5, 1.0])
    (gradient,) = torch.autograd.grad(FORGET_OBJECTIVES[name](inputs).sum(), inputs.nll)
    assert (gradient < 0).all()


def test_bounded_objectives_say_so_truly() -> None:
    inputs = likelihood([20.0, 20.0], [2, 2], [1.0, 1.0])
    for name in ("ga", "npo", "simnpo", "wga", "satimp"):
        objective = FORGET_OBJECTIVES[name]
        assert bool((objective(inputs) >= 0).all()) == objective.non_negative


def test_likelihood_equals_full_logits_and_ignores_padding(tiny_model: torch.nn.Module) -> None:
    torch.manual_seed(1)
    ids = torch.randint(2, 300, (3, 9))
    labels = ids.clone()
    labels[0, :4] = -100
    labels[1, :2] = -100
    mask = torch.ones_like(ids)
    ids[2, 6:], labels[2, 6:], mask[2, 6:] = 1, -100, 0
    found = answer_likelihood(
        tiny_model, {"input_ids": ids, "labels": labels, "attention_mask": mask}, keep_logits=True
    )
    logits = tiny_model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    shifted = labels[:, 1:]
    per_token = torch.nn.functional.cross_entropy(logits.transpose(1, 2), shifted, reduction="none", ignore_index=-100)
    torch.testing.assert_close(found.nll, per_token.sum(-1), rtol=1e-5, atol=1e-6)
    assert found.tokens.tolist() == [5, 7, 5]
    assert found.logits is not None
    torch.testing.assert_close(found.logits, logits[shifted != -100], rtol=1e-5, atol=1e-5)
    alone = answer_likelihood(tiny_model, {"input_ids": ids[2:, :6], "labels": labels[2:, :6]})
    torch.testing.assert_close(alone.nll[0], found.nll[2], rtol=1e-5, atol=1e-6)
    assert not tiny_model.lm_head._forward_pre_hooks
