"""TOFU's evaluator: every metric, result files, and results that are never reused for something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tests.evaluation.models import Interrupted
from tests.evaluation.rows import tiny_tofu
from tests.tiny_models import CHAT_TEMPLATE, build_model, build_tokenizer
from unlearn_hf.benchmarks.tofu.data import TofuData
from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator
from unlearn_hf.models.wrappers import without_wrappers

OPTIONS: dict[str, Any] = {"max_new_tokens": 4, "batch_size": 4}


def test_every_metric_and_files(tmp_path: Path) -> None:
    retain = TofuEvaluator(tiny_tofu(), **OPTIONS)
    retain(build_model(seed=1), build_tokenizer(), output_dir=tmp_path / "retain")
    evaluator = TofuEvaluator(tiny_tofu(), retain_results=tmp_path / "retain", **OPTIONS)
    found = evaluator(build_model(), build_tokenizer(), output_dir=tmp_path / "model")
    for split in ("forget", "retain", "real_authors", "world_facts"):
        assert {f"{split}_prob", f"{split}_rouge", f"{split}_truth_ratio"} <= found.keys()
    assert {"model_utility", "forget_quality", "extraction_strength", "exact_memorization"} <= found.keys()
    assert {"privleak", "mia_loss_auc", "mia_min_k_plus_plus_auc", "privacy", "memorization"} <= found.keys()
    assert all(isinstance(value, float) and value == value for value in found.values())
    assert (tmp_path / "model" / "evaluation.json").is_file()
    assert (tmp_path / "model" / "samples.parquet").is_file()
    assert evaluator.last_result is not None
    assert len(evaluator.last_result.samples) == 15
    assert found["forget_quality"] == evaluator.last_result.values["forget_quality"].value
    assert evaluator.last_result.values["forget_prob"].fingerprint == evaluator.data_fingerprint()


def test_model_against_itself_has_perfect_forget_quality(tmp_path: Path) -> None:
    TofuEvaluator(tiny_tofu(), **OPTIONS)(build_model(), build_tokenizer(), output_dir=tmp_path)
    found = TofuEvaluator(tiny_tofu(), retain_results=tmp_path, **OPTIONS)(build_model(), build_tokenizer())
    assert found["forget_quality"] == 1.0
    assert found["privacy"] == pytest.approx(1.0)


def other_data() -> TofuData:
    tofu = tiny_tofu()
    rows = tofu["forget_perturbed"].to_list()
    rows[0]["answer"] += " And more."
    tofu["forget_perturbed"] = type(tofu["forget_perturbed"]).from_list(rows)
    return tofu


def other_model() -> LlamaForCausalLM:
    model = build_model()
    model.lm_head.weight.data[7, 3] += 0.01
    return model


@pytest.mark.parametrize("change", ["nothing", "model", "data", "settings", "generation"])
def test_stale_results_are_never_reused(change: str, tmp_path: Path) -> None:
    first = Interrupted(build_model(), after=4)
    with pytest.raises(RuntimeError, match="power cut"):
        TofuEvaluator(tiny_tofu(), resume=True, **OPTIONS)(first.model, build_tokenizer(), output_dir=tmp_path)
    assert list(tmp_path.rglob("*.jsonl"))
    tofu = other_data() if change == "data" else tiny_tofu()
    options = {**OPTIONS, **{"settings": {"max_length": 60}, "generation": {"max_new_tokens": 3}}.get(change, {})}
    model = other_model() if change == "model" else build_model()

    def passes(folder: Path) -> tuple[int, dict[str, float]]:
        counted = Interrupted(model, None)
        found = TofuEvaluator(tofu, resume=True, **options)(counted.model, build_tokenizer(), output_dir=folder)
        counted.handle.remove()
        return counted.passes, found

    whole, expected = passes(tmp_path / "fresh")
    resumed, found = passes(tmp_path)
    assert resumed == (whole - 2 if change == "nothing" else whole)
    assert found == pytest.approx(expected, abs=1e-9)


def with_rope_theta(theta: float) -> LlamaForCausalLM:
    """The same weights under another configuration."""
    config = build_model().config
    config.rope_parameters = {**config.rope_parameters, "rope_theta": theta}
    model = LlamaForCausalLM(config)
    model.load_state_dict(build_model().state_dict())
    return model.eval()


def with_adapter(alpha: int) -> PeftModel:
    """The same weights of an adapter, scaled differently."""
    torch.manual_seed(0)
    model = get_peft_model(build_model(), LoraConfig(r=2, lora_alpha=alpha, init_lora_weights=False))
    return model.eval()


def with_attention(name: str) -> LlamaForCausalLM:
    model = build_model().eval()
    model.set_attn_implementation(name)
    return model


def with_chat_template(template: str) -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer(chat=True)
    tokenizer.chat_template = template
    return tokenizer


CHAT = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}<|end|>{% endfor %}"
CHANGES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "template": (lambda: with_chat_template(CHAT_TEMPLATE), lambda: with_chat_template(CHAT)),
    "rope_theta": (build_model, lambda: with_rope_theta(7.0)),
    "dtype": (lambda: build_model().bfloat16(), lambda: build_model().bfloat16().float()),
    "adapter": (lambda: with_adapter(4), lambda: with_adapter(64)),
    "attention": (build_model, lambda: with_attention("eager")),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_going_on_under_a_change_that_the_options_do_not_show(change: str, tmp_path: Path) -> None:
    """Numbers of a chat template, configuration, precision or adapter are never taken for those of another."""

    def evaluate(made: Any, folder: Path, after: int | None = None) -> tuple[int, pd.DataFrame | None]:
        model, tokenizer = (build_model(), made) if change == "template" else (made, build_tokenizer(chat=True))
        evaluator = TofuEvaluator(tiny_tofu(), resume=True, template="auto", **OPTIONS)
        counted = Interrupted(without_wrappers(model).model, after)  # what an adapter calls, too
        if after is None:
            evaluator(model, tokenizer, output_dir=folder)
            assert evaluator.last_result is not None
            return counted.passes, evaluator.last_result.samples
        with pytest.raises(RuntimeError, match="power cut"):
            evaluator(model, tokenizer, output_dir=folder)
        return counted.passes, None

    before, after = CHANGES[change]
    evaluate(before(), tmp_path / "run", 10)
    assert len(list((tmp_path / "run" / "partial").rglob("*.jsonl"))) >= 1
    resumed, found = evaluate(after(), tmp_path / "run")
    whole, expected = evaluate(after(), tmp_path / "fresh")
    pd.testing.assert_frame_equal(found, expected)
    assert resumed == whole
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["evaluation.json", "samples.parquet"]


def test_resumed_evaluation_equals_another_to_the_bit(tmp_path: Path) -> None:
    """In half precision and under TOFU's rule of padded prompts, numbers depend on what shares a batch."""
    tables = []
    for name, after in (("run", 9), ("run", None), ("fresh", None)):
        evaluator = TofuEvaluator(tiny_tofu(), resume=True, protocol="official", batch_size=4, max_new_tokens=4)
        model = Interrupted(build_model().bfloat16(), after).model
        if after is None:
            evaluator(model, build_tokenizer(), output_dir=tmp_path / name)
            assert evaluator.last_result is not None
            tables.append(evaluator.last_result.samples)
        else:
            with pytest.raises(RuntimeError, match="power cut"):
                evaluator(model, build_tokenizer(), output_dir=tmp_path / name)
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_finished_evaluation_leaves_no_partial_results(tmp_path: Path) -> None:
    TofuEvaluator(tiny_tofu(), resume=True, **OPTIONS)(build_model(), build_tokenizer(), output_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "samples.parquet"]


def test_first_rows_and_official_protocol() -> None:
    evaluator = TofuEvaluator(tiny_tofu(), max_rows=2, **OPTIONS)
    assert [len(request.rows) for request in evaluator.requests()] == [2] * 5
    official = TofuEvaluator(tiny_tofu(), protocol="official")
    assert official.engine.generation.max_length == 200
    assert TofuEvaluator(tiny_tofu()).engine.generation.max_length is None


def test_mini_data_end_to_end() -> None:
    from unlearn_hf.benchmarks.tofu.data import load_tofu

    evaluator = TofuEvaluator(load_tofu("forget01", source="mini"), max_rows=2, **OPTIONS)
    assert "model_utility" in evaluator(build_model(), build_tokenizer())
