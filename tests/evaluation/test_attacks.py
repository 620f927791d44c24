"""Attacks by gradient norm and against a reference model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from tests.evaluation.models import ends_at_once
from tests.evaluation.rows import requests, tiny_tofu
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.benchmarks.from_logs import recompute
from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator
from unlearn_hf.evaluation.attacks.extra_passes import gradient_norm, gradient_norms
from unlearn_hf.evaluation.engine import Engine
from unlearn_hf.evaluation.sample_table import split_rows
from unlearn_hf.evaluation.token_scores import ScoredText
from unlearn_hf.models.loading import load_model

TEXT = ScoredText("forget/0/answer/0", [0, 9, 8, 7, 1], [-100, -100, 8, 7, 1])


def by_backward(model: LlamaForCausalLM, text: ScoredText) -> float:
    model.zero_grad()
    model(torch.tensor([text.input_ids]), labels=torch.tensor([text.labels])).loss.backward()
    norms = [parameter.grad.norm().item() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    return sum(norms) / len(norms)


def test_equals_backward_and_leaves_no_trace() -> None:
    model = build_model(dropout=0.5)
    model(torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    model.model.norm.weight.requires_grad_(False)
    gradients = [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]
    frozen = [parameter.requires_grad for parameter in model.parameters()]
    found = gradient_norms(model, [TEXT])
    assert [parameter.requires_grad for parameter in model.parameters()] == frozen
    for parameter, before in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is before is None or torch.equal(parameter.grad, before)
    assert model.training
    model.model.norm.weight.requires_grad_(True)
    assert found == {TEXT.key: pytest.approx(by_backward(model.eval(), TEXT), rel=1e-5)}


def test_frozen_models_have_gradient_norms_too() -> None:
    model = build_model().eval()
    expected = gradient_norm(model, TEXT, torch.device("cpu"))
    model.requires_grad_(False)
    assert gradient_norm(model, TEXT, torch.device("cpu")) == pytest.approx(expected)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_tofu_with_both_attacks(tmp_path: Path) -> None:
    build_model(seed=1).save_pretrained(tmp_path / "reference")
    evaluator = TofuEvaluator(
        tiny_tofu(), max_new_tokens=2, attacks=["gradient_norm"], attack_model=str(tmp_path / "reference")
    )
    found = evaluator(build_model(), build_tokenizer(), output_dir=tmp_path / "result")
    assert {"mia_gradient_norm_auc", "mia_reference_auc"} <= found.keys()
    assert evaluator.last_result is not None
    samples = evaluator.last_result.samples
    attacked = samples["split"].isin(["forget", "holdout"])
    assert samples.loc[attacked, "gradient_norm"].notna().all()
    assert samples.loc[~attacked, ["gradient_norm", "reference"]].isna().all(axis=None)
    theirs = Engine().run(build_model(seed=1), build_tokenizer(), evaluator.requests()[:1])
    forget = samples[samples["split"] == "forget"]
    difference = forget["answer_mean_nll"] - theirs["answer_mean_nll"] - forget["reference"]
    assert difference.abs().max() < 1e-5


def test_a_model_against_itself_tells_nothing_apart(tmp_path: Path) -> None:
    """Rounding is no difference: not that of packed rows, nor of half precision, nor of a model that is loaded."""
    build_model().save_pretrained(tmp_path / "model")
    for model, other in (
        (build_model(), build_model()),
        (load_model(str(tmp_path / "model"), "bfloat16"), str(tmp_path / "model")),
        (build_model(), str(tmp_path / "model")),
    ):
        evaluator = TofuEvaluator(tiny_tofu(), max_new_tokens=2, attack_model=other)
        found = evaluator(model, build_tokenizer())
        assert evaluator.last_result is not None
        assert set(evaluator.last_result.samples["reference"].dropna()) == {0.0}
        assert found["mia_reference_auc"] == 0.5


def test_result_names_the_model_that_was_compared_with(tmp_path: Path) -> None:
    path, fingerprints = str(tmp_path / "other"), []
    build_model(seed=1).save_pretrained(path)
    for other in (path, build_model(seed=1), build_model(seed=2)):
        evaluator = TofuEvaluator(tiny_tofu(), max_new_tokens=2, attack_model=other)
        evaluator(build_model(), build_tokenizer(), output_dir=tmp_path)
        record = json.loads((tmp_path / "evaluation.json").read_text())
        assert record["attack_model"]["name"] == (path if other is path else None)
        [value] = [each for each in record["metrics"] if each["name"] == "mia_reference_auc"]
        assert value["settings"]["attack_model"] == record["attack_model"]
        fingerprints.append(record["attack_model"]["fingerprint"])
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    TofuEvaluator(tiny_tofu(), max_new_tokens=2)(build_model(), build_tokenizer(), output_dir=tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text())["attack_model"] is None


def test_gradient_norms_leave_the_end_out_where_the_other_framework_does(tmp_path: Path) -> None:
    model, tables = build_model().eval(), []
    for name in (None, "open_unlearning"):
        evaluator = TofuEvaluator(tiny_tofu(), max_new_tokens=2, attacks=["gradient_norm"], compatibility=name)
        evaluator(model, build_tokenizer(), output_dir=tmp_path / str(name))
        assert evaluator.last_result is not None
        tables.append(evaluator.last_result.samples.set_index(["split", "index"]))
        definition = evaluator.last_result.values["mia_gradient_norm_auc"].definition
        assert definition == "holdout_above_forget" + ("_without_end" if name else "")
        # The scores cannot be brought to the other definition, so that a log gives none under it.
        other = "unlearn_hf" if name else "open_unlearning"
        assert "mia_gradient_norm_auc" in recompute(tmp_path / str(name))
        assert "mia_gradient_norm_auc" not in recompute(tmp_path / str(name), compatibility=other)
    [text, *_] = evaluator.requests()[0].texts(evaluator.engine.encoder(build_tokenizer()))
    assert tables[0].loc[("forget", 0), "gradient_norm"] == pytest.approx(by_backward(model, text), rel=1e-5)
    without = replace(text, labels=[*text.labels[:-1], -100])
    assert tables[1].loc[("forget", 0), "gradient_norm"] == pytest.approx(by_backward(model, without), rel=1e-5)


def test_extraction_strengths_of_rows_have_the_definition_of_their_mean() -> None:
    evaluator = TofuEvaluator(tiny_tofu(), max_new_tokens=2, compatibility="open_unlearning")
    found = evaluator(ends_at_once(build_model()), build_tokenizer())
    assert evaluator.last_result is not None
    forget = split_rows(evaluator.last_result.samples, "forget")
    assert list(forget["extraction_strength"]) == pytest.approx(list(1 / (forget["answer_tokens"] - 1)))
    assert found["extraction_strength"] == pytest.approx(forget["extraction_strength"].mean(), abs=1e-15)


def test_interrupted_gradient_norms_resume(tmp_path: Path) -> None:
    from unlearn_hf.likelihood.one_pass import PartialResults

    texts = requests(3)[1].texts(Engine().encoder(build_tokenizer()))
    first = gradient_norms(build_model(), texts, partial=PartialResults(tmp_path, "key"))
    second = gradient_norms(torch.nn.Linear(1, 1), texts, partial=PartialResults(tmp_path, "key"))
    assert first == second


def test_unknown_attack() -> None:
    with pytest.raises(ValueError, match="attack: 'loudness' is not known"):
        TofuEvaluator(tiny_tofu(), attacks=["loudness"])
