"""Answer likelihoods against full logits, for the families of architectures in use, whole and in chunks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate import PartialState, debug_launcher
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from tests.likelihood.architectures import (
    ARCHITECTURES,
    VOCABULARY,
    assert_same,
    build,
    expected_nll,
    gradients,
    ragged_batch,
)
from tests.tiny_models import build_model
from unlearn_hf.likelihood import in_place_losses
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.objectives import RETAIN_OBJECTIVES
from unlearn_hf.reference.model_before import ReferenceModel

CHUNKED = 3 * VOCABULARY  # three positions at a time


@pytest.mark.parametrize("largest_logits", [2**25, CHUNKED], ids=["whole", "chunked"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_likelihoods_and_gradients_are_those_of_full_logits(name: str, largest_logits: int) -> None:
    model, batch = build(name), ragged_batch()
    expected = expected_nll(model, batch)
    wanted = gradients(model, expected)
    found = answer_likelihood(model, batch, largest_logits=largest_logits).nll
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_same(gradients(model, found), wanted)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_that_was_asked_still_gives_logits_and_generates(name: str) -> None:
    model, batch = build(name).eval(), ragged_batch()
    inputs = {"input_ids": batch["input_ids"][:, :6], "attention_mask": batch["attention_mask"][:, :6]}
    before = model(**inputs).logits
    texts = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    answer_likelihood(model, batch)
    torch.testing.assert_close(model(**inputs).logits, before, rtol=0, atol=0)
    assert torch.equal(model.generate(**inputs, max_new_tokens=3, do_sample=False), texts)


def test_chunks_agree_to_a_millionth() -> None:
    model, batch = build("llama-tied"), ragged_batch()
    whole = answer_likelihood(model, batch)
    wanted = gradients(model, whole.nll)
    for rows in (1, 2, 5, 100):
        found = answer_likelihood(model, batch, largest_logits=rows * VOCABULARY)
        torch.testing.assert_close(found.token_nll, whole.token_nll, rtol=1e-6, atol=1e-6)
        assert_same(gradients(model, found.nll), wanted, 2e-6)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma2", "opt"])
def test_no_more_logits_than_allowed_exist_at_once(name: str) -> None:
    model, batch = build(name), ragged_batch()
    seen: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda module, arguments, output: seen.append(output.numel()))
    answer_likelihood(model, batch, largest_logits=CHUNKED).nll.sum().backward()
    assert max(seen) <= CHUNKED
    assert sum(seen) > CHUNKED * 8


def _adapted(name: str) -> nn.Module:
    config = LoraConfig(r=4, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    return get_peft_model(build(name), config)


def _checkpointed() -> nn.Module:
    model = build("llama").train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    return model


WRAPPED = {
    "adapter on the head": lambda: _adapted("llama"),
    "adapter, capped": lambda: _adapted("gemma3_text"),
    "activation checkpointing": _checkpointed,
    "compiled": lambda: torch.compile(build("llama", num_hidden_layers=1), backend="eager"),
}


@pytest.mark.parametrize("largest_logits", [2**25, CHUNKED], ids=["whole", "chunked"])
@pytest.mark.parametrize("case", WRAPPED)
def test_through_wrappers(case: str, largest_logits: int) -> None:
    model, batch = WRAPPED[case](), ragged_batch()
    expected = expected_nll(model, batch)
    wanted = gradients(model, expected)
    found = answer_likelihood(model, batch, largest_logits=largest_logits).nll
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_same(gradients(model, found), wanted)


def test_a_compiled_model_is_not_compiled_again_for_every_batch() -> None:
    torch._dynamo.reset()
    model = torch.compile(build("llama", num_hidden_layers=1), backend="eager", dynamic=True)
    seen = []
    for seed in range(5):
        batch = ragged_batch(seed)
        batch["labels"][0, : 3 + seed] = -100
        found = answer_likelihood(model, batch)
        torch.testing.assert_close(found.nll, expected_nll(model._orig_mod, batch), rtol=1e-5, atol=1e-5)
        seen.append(torch._dynamo.utils.counters["frames"]["total"])
    assert seen[-1] == seen[2], seen


def _sharded(folder: str) -> None:
    expected = torch.load(f"{folder}/expected.pt")
    for wrapper in ("ddp", "ddp-unused", "fsdp2"):
        for largest_logits in (2**25, CHUNKED):
            model: Any = build("llama-tied")
            if wrapper == "fsdp2":
                for layer in model.model.layers:
                    fully_shard(layer, reshard_after_forward=True)
                fully_shard(model, reshard_after_forward=True)
            else:
                model = DistributedDataParallel(model, find_unused_parameters=wrapper == "ddp-unused")
            batch = {name: value[dist.get_rank() :: 2] for name, value in ragged_batch().items()}
            answer_likelihood(model, batch, largest_logits=largest_logits).nll.sum().backward()
            for name, parameter in model.named_parameters():
                gradient: Any = parameter.grad
                whole = gradient.full_tensor() if wrapper == "fsdp2" else gradient
                wanted = expected[name.removeprefix("module.")]
                torch.testing.assert_close(2 * whole, wanted, rtol=1e-4, atol=1e-5)


def test_data_parallel_and_sharded(tmp_path: Path) -> None:
    model = build("llama-tied")
    expected_nll(model, ragged_batch()).sum().backward()
    torch.save({name: parameter.grad for name, parameter in model.named_parameters()}, tmp_path / "expected.pt")
    debug_launcher(_in_group, args=(str(tmp_path),), num_processes=2)


def _in_group(folder: str) -> None:
    PartialState._reset_state()  # tests before this one may have left a state of one process
    PartialState(cpu=True)
    _sharded(folder)


def test_copies_answer_for_themselves() -> None:
    model, batch = build("llama"), ragged_batch()
    before = answer_likelihood(model, batch).nll.detach()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight.mul_(0.0)
    for largest_logits in (2**25, CHUNKED):
        torch.testing.assert_close(answer_likelihood(model, batch, largest_logits=largest_logits).nll, before)
        flat = answer_likelihood(other, batch, largest_logits=largest_logits).token_nll
        torch.testing.assert_close(flat, torch.full_like(flat, VOCABULARY).log())


def test_a_model_of_another_build_is_asked_for_all_logits() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = build_model(vocab_size=VOCABULARY)

        def forward(self, **inputs: Any) -> Any:
            return self.inside(**inputs)

    model, batch = Wrapper(), ragged_batch()
    torch.testing.assert_close(answer_likelihood(model, batch).nll, expected_nll(model.inside, batch))
    with pytest.raises(ValueError, match="causal language model"):
        answer_likelihood(model.inside.model, batch)


@pytest.mark.parametrize("adapter", [False, True])
def test_divergence_in_chunks(adapter: bool) -> None:
    model, batch = build("gemma3_text"), ragged_batch()
    if adapter:
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "lm_head"]))
    reference = ReferenceModel(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    kl = RETAIN_OBJECTIVES["kl"]
    before = reference.logits(model, batch)

    def divergence(logits: torch.Tensor, targets: torch.Tensor, start: int) -> dict[str, torch.Tensor]:
        assert kl.token_function is not None
        return {"objective": kl.token_function(logits, targets, before(slice(start, start + len(logits))), None)}

    plain = answer_likelihood(model, batch, keep_logits=True)
    assert plain.logits is not None
    log_p, log_q = plain.logits.log_softmax(-1), before(slice(None)).log_softmax(-1)
    expected = plain.sum_by_sequence((log_q.exp() * (log_q - log_p)).sum(-1))
    wanted = gradients(model, expected)
    for largest_logits in (2**25, CHUNKED):
        found = kl(answer_likelihood(model, batch, token_function=divergence, largest_logits=largest_logits))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert_same(gradients(model, found), wanted)


def test_gradients_in_place() -> None:
    torch.manual_seed(0)
    values, reference = (torch.randn(40, 7, requires_grad=True) for _ in range(2))
    targets, weights = torch.randint(0, 7, (40,)), torch.randn(40)
    fixed = reference.detach().log_softmax(-1)
    pairs = [
        (in_place_losses.cross_entropy(values + 0, targets), F.cross_entropy(values, targets, reduction="none")),
        (
            in_place_losses.divergence(values + 0, fixed),
            F.kl_div(values.log_softmax(-1), fixed, reduction="none", log_target=True).sum(-1),
        ),
    ]
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        wanted = torch.autograd.grad((expected * weights).sum(), values)
        torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), values), wanted, rtol=1e-6, atol=1e-6)


def test_logits_that_are_used_elsewhere_are_not_overwritten_silently() -> None:
    values = torch.randn(4, 7, requires_grad=True)
    logits = values.exp()  # the backward pass of exp reads its result
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        in_place_losses.cross_entropy(logits, torch.zeros(4, dtype=torch.long)).sum().backward()
