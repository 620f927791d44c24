"""The card that a run leaves: what the hub reads of it, and what a person does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from tests.evaluation.tables import tofu_table
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.evaluation.results import write_results
from unlearn_hf.methods.npo import NPOTrainer
from unlearn_hf.report.model_card import write_model_card

TRAINED_ON = {"forget": {"rows": 3, "sha256": "a1"}, "retain": {"rows": 4, "sha256": "b2"}}
DATA = {
    "hub": {"benchmark": "tofu", "split": "forget10", "source": "hub", "trained_on": TRAINED_ON},
    "mini": {"benchmark": "tofu", "split": "forget10", "source": "mini", "trained_on": TRAINED_ON},
    "own": {"forget_file": "f.jsonl", "retain_file": "r.jsonl", "trained_on": TRAINED_ON},
}


def record(data: str = "hub", **changes: Any) -> dict[str, Any]:
    configuration = {"method": "npo", "model_name_or_path": "some/model", "learning_rate": 1e-5, "beta": 0.1}
    return {
        "configuration": configuration | {"use_lora": False, "max_steps": None},
        "data": DATA[data],
        "versions": dict.fromkeys(("unlearn_hf", "torch", "transformers", "accelerate", "peft", "python"), "1.2"),
        "machine": {"processes": 2, "device": "cpu"},
        "started": "2026-11-25T04:00:00+00:00",
        "metrics": {"forget_prob": 0.25},
        **changes,
    }


def card(folder: Path) -> tuple[ModelCard, str]:
    text = (folder / "README.md").read_text()
    assert "{{" not in text
    assert "{%" not in text
    assert "\n\n\n" not in text
    assert text.endswith("\n")
    return ModelCard(text), text


@pytest.mark.parametrize(("data", "dataset"), [("hub", "locuslab/TOFU"), ("mini", None), ("own", None)])
def test_the_hub_reads_where_it_comes_from_and_every_result(data: str, dataset: str | None, tmp_path: Path) -> None:
    table = tofu_table()
    write_results(tmp_path, aggregate_tofu(table, table), table, benchmark="tofu")
    write_model_card(tmp_path, record(data), NPOTrainer)
    found, text = card(tmp_path)
    assert found.data.base_model == "some/model"
    assert found.data.datasets == ([dataset] if dataset else None)
    assert {"unlearning", "npo"} <= set(found.data.tags)
    results = {result.metric_type: result for result in found.data.eval_results}
    kept = {metric["name"]: metric for metric in json.loads((tmp_path / "evaluation.json").read_text())["metrics"]}
    assert results["forget_quality"].metric_value == kept["forget_quality"]["value"]
    assert results["model_utility"].metric_args["definition"] == kept["model_utility"]["definition"]
    assert "forget_quality_open_unlearning" not in results  # another definition of one that is there
    for name, result in results.items():
        assert result.metric_value == kept[name]["value"]
        assert f"| {name} |" in text
        assert result.dataset_name == ("own" if data == "own" else "tofu forget10")


def test_metrics_without_a_result_file_are_a_plain_table(tmp_path: Path) -> None:
    write_model_card(tmp_path, record(), NPOTrainer)
    found, text = card(tmp_path)
    assert found.data.eval_results is None
    assert "| forget_prob | 0.25 |" in text


def test_a_folder_of_this_machine_is_no_base_model(tmp_path: Path) -> None:
    made = record()
    made["configuration"]["model_name_or_path"] = str(tmp_path)
    write_model_card(tmp_path, made, NPOTrainer)
    assert card(tmp_path)[0].data.base_model is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "2 processes on cpu, torch 1.2, transformers 1.2, accelerate 1.2, peft 1.2, python 1.2.\n"),
        ({"commit": "abc"}, "python 1.2, commit abc.\n"),
        ({"divergence": "step 3: NaN."}, "**The run diverged** at step 3: NaN."),
        ({"ended": "step 4: enough."}, "**The method ended the run** before step 4: enough."),
        ({"retain_budget_spent": "step 5."}, "**The retain budget was spent** at step 5."),
        ({"metrics": {}}, "| beta | 0.1 |"),
    ],
)
def test_what_a_person_reads(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    write_model_card(tmp_path, record(**changes), NPOTrainer)
    _, text = card(tmp_path)
    assert told in text
    assert NPOTrainer.paper["title"] in text
    assert "max_steps" not in text  # it has no value
    assert ("## Evaluation" in text) == bool(changes.get("metrics", True))


def test_fine_tuning_and_adapters(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    made = record()
    made["configuration"] |= {"method": None, "use_lora": True}
    write_model_card(tmp_path, made, None)
    found, text = card(tmp_path)
    assert found.data.library_name == "peft"
    assert found.data.tags == ["fine-tuning"]
    assert "`some/model`, fine-tuned as a low-rank adapter with unlearn_hf 1.2.\n" in text
    assert f'AutoPeftModelForCausalLM.from_pretrained("{tmp_path.name}")' in text
    assert "## Source" not in text
