"""TOFU's evaluator: every metric, result files, and results that are never reused for something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from tests.conftest import build_model, build_tokenizer
from tests.evaluation.models import Interrupted
from tests.evaluation.rows import tiny_tofu
from unlearn_hf.benchmarks.tofu.data import TofuData
from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator

OPTIONS: dict[str, Any] = {"max_new_tokens": 4, "batch_size": 4}


def test_every_metric_and_files(tmp_path: Path) -> None:
    retain = TofuEvaluator(tiny_tofu(), **OPTIONS)
    retain(build_model(seed=1), build_tokenizer(), output_dir=tmp_path / "retain")
    evaluator = TofuEvaluator(tiny_tofu(), reference=tmp_path / "retain", **OPTIONS)
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
    found = TofuEvaluator(tiny_tofu(), reference=tmp_path, **OPTIONS)(build_model(), build_tokenizer())
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
