"""The engine: the same numbers for every batching, padding, order and number of ranks; resumption; broken models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tests.evaluation.models import Interrupted, ends_at_once
from tests.evaluation.rows import SHORT, largest_difference, qa_rows, requests
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.evaluation.engine import Engine
from unlearn_hf.evaluation.requests import SplitRequest
from unlearn_hf.likelihood.one_pass import PartialResults

CLOSE = 1e-5


def table(model: LlamaForCausalLM | None = None, wanted: list[SplitRequest] | None = None, **options: Any) -> Any:
    engine = Engine(**{"generation": SHORT, **options})
    return engine.run(model or build_model(), build_tokenizer(), wanted or requests())


@pytest.fixture(scope="module")
def expected() -> pd.DataFrame:
    return table()


def test_table_has_everything_once(expected: pd.DataFrame) -> None:
    assert len(expected) == 12
    forget, holdout = (expected[expected["split"] == name] for name in ("forget", "holdout"))
    assert list(forget["index"]) == list(range(8))
    assert all(len(values) == 2 for values in forget["perturbed_mean_nll"])
    for name in ("loss", "zlib", "min_k", "min_k_plus_plus", "extraction_strength", "exact_memorization"):
        assert expected[name].notna().all()
    assert forget["generation"].notna().all()
    assert holdout["generation"].isna().all()
    assert holdout["paraphrase_mean_nll"].isna().all()
    assert (expected["loss"] - expected["answer_mean_nll"]).abs().max() < 1e-9


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 4}, {"batch_size": 16}, {"token_budget": 60}])
def test_batches_change_nothing(options: dict[str, int], expected: pd.DataFrame) -> None:
    assert largest_difference(table(**options), expected) < CLOSE


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("packed", [True, False])
def test_packed_or_padded(packed: bool, attention: str, expected: pd.DataFrame) -> None:
    model = build_model()
    model.set_attn_implementation(attention)
    assert largest_difference(table(model, packed=packed, batch_size=4), expected) < CLOSE


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side_of_the_tokenizer_changes_nothing(side: str, expected: pd.DataFrame) -> None:
    tokenizer = build_tokenizer()
    tokenizer.padding_side = side
    found = Engine(generation=SHORT).run(build_model(), tokenizer, requests())
    assert largest_difference(found, expected) < CLOSE
    assert tokenizer.padding_side == side


def test_order_of_rows_changes_nothing(expected: pd.DataFrame) -> None:
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3)).tolist()
    forget, holdout = requests()
    shuffled = SplitRequest("forget", [forget.rows[i] for i in order], forget.scored, details=True)
    found = table(wanted=[holdout, shuffled], batch_size=3)
    is_forget = found["split"] == "forget"
    found.loc[is_forget, "index"] = [order[index] for index in found.loc[is_forget, "index"]]
    assert largest_difference(found[expected.columns], expected) < CLOSE


def _two_ranks(folder: str) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # of tests before, inherited from the parent process
    accelerator = Accelerator(cpu=True)
    partial = PartialResults(Path(folder), "key")
    found = Engine(generation=SHORT, batch_size=3).run(
        build_model(), build_tokenizer(), requests(), accelerator=accelerator, partial=partial
    )
    found.to_pickle(Path(folder) / f"{accelerator.process_index}.pickle")


def test_one_rank_or_two(tmp_path: Path, expected: pd.DataFrame) -> None:
    # Results that rank 0 has found already must not make rank 1 deal the rest differently.
    table_of_three = Engine(generation=SHORT, batch_size=2).run(
        build_model(), build_tokenizer(), requests(3), partial=PartialResults(tmp_path, "key")
    )
    assert len(table_of_three) == 7
    debug_launcher(_two_ranks, args=(str(tmp_path),), num_processes=2)
    for rank in (0, 1):
        found = pd.read_pickle(tmp_path / f"{rank}.pickle")
        assert largest_difference(found, expected) < CLOSE
    keys = [json.loads(line)[0] for path in tmp_path.rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(set(keys)) == 8 + 4 + 8  # every question with its answers, and every prompt
    assert len(keys) < 8 + 4 + 8 + 9  # a batch of three is computed again where one of it is missing


def test_model_is_left_as_it_was() -> None:
    model, tokenizer = build_model(dropout=0.3), build_tokenizer()
    model.train()
    model.model.layers[1].eval()  # a frozen part
    model.config.use_cache = False
    model.generation_config.update(do_sample=True, temperature=0.7, top_k=3)
    tokenizer.padding_side = "right"
    model(torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    modes = [module.training for module in model.modules()]
    gradients = [parameter.grad for parameter in model.parameters()]
    values = [gradient.clone() for gradient in gradients if gradient is not None]
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    config, generation_config = model.config.to_dict(), model.generation_config
    settings, state = generation_config.to_dict(), torch.get_rng_state()

    Engine(generation=SHORT).run(model, tokenizer, requests(3))

    assert [module.training for module in model.modules()] == modes
    assert all(now.grad is before for now, before in zip(model.parameters(), gradients, strict=True))
    assert all(
        torch.equal(now, before) for now, before in zip(filter(torch.is_tensor, gradients), values, strict=True)
    )
    assert all(torch.equal(now, before) for now, before in zip(model.parameters(), weights, strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.config.to_dict() == config
    assert model.generation_config is generation_config
    assert generation_config.to_dict() == settings
    assert tokenizer.padding_side == "right"
    assert not model.lm_head._forward_pre_hooks
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_model_is_left_as_it_was_when_evaluation_fails() -> None:
    model = build_model().train()
    generation_config = model.generation_config
    with pytest.raises(RuntimeError, match="power cut"):
        table(Interrupted(model, after=7).model)
    assert model.training
    assert model.generation_config is generation_config
    assert not model.lm_head._forward_pre_hooks


@pytest.mark.parametrize("after", [4, 9])  # in the likelihoods, in the generations
def test_interrupted_evaluation_resumes(after: int, tmp_path: Path, expected: pd.DataFrame) -> None:
    def run(model: LlamaForCausalLM) -> pd.DataFrame:
        engine = Engine(generation=SHORT, batch_size=4)
        return engine.run(model, build_tokenizer(), requests(), partial=PartialResults(tmp_path, "key"))

    whole, first, second = (Interrupted(build_model(), limit) for limit in (None, after, None))
    table(whole.model, batch_size=4)
    with pytest.raises(RuntimeError, match="power cut"):
        run(first.model)
    with next(tmp_path.rglob("likelihood-0.jsonl")).open("a") as file:
        file.write('["forget/0/ans')  # a line cut by the interruption
    assert largest_difference(run(second.model), expected) < CLOSE
    # Two passes try whether answers can share a row; a batch of generations takes six and starts afresh.
    assert whole.passes - after <= second.passes <= whole.passes - after + 2 + 6
    assert second.passes < whole.passes


def test_complete_results_need_no_forward_pass(tmp_path: Path, expected: pd.DataFrame) -> None:
    for passes in (True, False):
        counted = Interrupted(build_model(), None)
        found = Engine(generation=SHORT).run(
            counted.model, build_tokenizer(), requests(), partial=PartialResults(tmp_path, "key")
        )
        assert largest_difference(found, expected) < CLOSE
        assert bool(counted.passes) is passes


def test_diverged_model_is_an_error_that_names_the_row() -> None:
    model = build_model()
    rows = [{"question": "Who is Ada?", "answer": "Ada Moren"}, {"question": "Who is ZZ?", "answer": "Ada Moren"}]
    model.model.embed_tokens.weight.data[build_tokenizer()("Z")["input_ids"]] = float("nan")
    with pytest.raises(ValueError, match=r"1 of 2 texts, first 'own/1/answer/0'.*earlier checkpoint"):
        table(model, [SplitRequest("own", rows)])


def test_model_that_says_nothing_has_defined_results() -> None:
    found = table(ends_at_once(build_model()))
    forget = found[found["split"] == "forget"]
    assert (forget["generation"] == "").all()
    assert (forget["rouge_l_recall"] == 0).all()
    assert (found["extraction_strength"] == 0).all()
    assert (found["exact_memorization"] == 0).all()
    values = aggregate_tofu(found)
    assert values["forget_rouge"].value == 0
    assert values["forget_prob"].value < 1e-6


def test_identical_answers_have_identical_scores() -> None:
    rows = [row | {"paraphrased_answer": row["answer"]} for row in qa_rows(4)]
    found = table(wanted=[SplitRequest("forget", rows, ("answer", "paraphrase"), generated=False)])
    assert (found["answer_mean_nll"] - found["paraphrase_mean_nll"]).abs().max() < CLOSE


def test_empty_answer() -> None:
    rows = [{"question": "Who is Ada?", "answer": ""}, {"question": "Who is Ada?", "answer": "Ada Moren"}]
    found = table(wanted=[SplitRequest("forget", rows, details=True)], template="llama2")
    assert found["answer_tokens"][0] >= 1  # the end of the text
    assert found["rouge_l_recall"][0] == 0
    assert found["loss"].notna().all()


def test_a_row_without_wrong_answers_is_named_before_the_first_pass() -> None:
    rows = [*qa_rows(2), qa_rows(1)[0] | {"perturbed_answer": []}]
    model = build_model()
    model.register_forward_pre_hook(lambda *_: pytest.fail("it was run"))
    with pytest.raises(ValueError, match="perturbed_answer: row 2 of forget has none"):
        table(model, [SplitRequest("forget", rows, ("answer", "perturbed"))])


def test_chat_templates(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    found = Engine(generation=SHORT).run(build_model(), chat_tokenizer, requests(2))
    assert found["answer_mean_nll"].notna().all()
