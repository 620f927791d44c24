"""Units defined outside the package in a few lines each, and found by command line, run folder and evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.audit.base import AUDIT_ATTACKS, AuditAttack, AuditPass, Findings
from unlearn_hf.benchmarks.base import BENCHMARKS, Benchmark, DataChoice
from unlearn_hf.benchmarks.own_rows.evaluator import PairsEvaluator
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.cli.verbs import VERBS, Verb
from unlearn_hf.common.registry import Registry
from unlearn_hf.evaluation.attacks.base import ATTACKS, Attack, AttackPass, TokenScores
from unlearn_hf.evaluation.metrics.alone import load_metric
from unlearn_hf.evaluation.metrics.base import Metric, added_metrics
from unlearn_hf.evaluation.metrics.catalog import METRICS
from unlearn_hf.evaluation.results import read_result, read_result_samples

FEW = ["--max_evaluation_rows", "3", "--max_new_tokens", "2"]
TRAINING = ["--method", "graddiff", "--max_steps", "1", "--per_device_train_batch_size", "2", "--use_cpu"]


@contextmanager
def registered(registry: Registry[Any], name: str, unit: Any) -> Iterator[None]:
    registry.register(name, unit)
    try:
        yield
    finally:
        registry.remove(name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("extending") / "model"
    build_model().save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


class CapitalsEvaluator(PairsEvaluator):
    benchmark = "capitals"


class Capitals(Benchmark):
    summary = "Capitals of invented countries."
    paper = "nobody, 2024"
    splits = ("even", "odd")
    options = ("max_new_tokens",)
    defaults: ClassVar[dict[str, Any]] = {"max_length": 77}

    def load(self, choice: DataChoice) -> dict[str, Dataset]:
        rows = [{"question": f"Capital of country {i}?", "answer": f"City {i}."} for i in range(12)]
        even, odd = Dataset.from_list(rows[::2]), Dataset.from_list(rows[1::2])
        return {"forget": even, "retain": odd} if choice.split == "even" else {"forget": odd, "retain": even}

    def evaluator(self, data: Mapping[str, Any], **settings: Any) -> CapitalsEvaluator:
        return CapitalsEvaluator(data, **settings)

    def aggregate(self, samples: pd.DataFrame, *_: Any, split: str | None = None, **options: Any) -> dict[str, Any]:
        return aggregate_tofu(samples, **options)


def test_a_benchmark(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    words = ["--model_name_or_path", model, "--benchmark", "capitals"]
    assert main(["unlearn", *words, *TRAINING, "--output_dir", run]) == BAD_INPUT
    assert "'capitals' is not known" in capsys.readouterr().err
    with registered(BENCHMARKS, "capitals", Capitals()):
        assert main(["list", "benchmarks"]) == 0
        assert "capitals: Capitals of invented countries." in capsys.readouterr().out
        assert main(["unlearn", "--help"]) == 0
        assert "capitals: even, odd" in " ".join(capsys.readouterr().out.split())
        assert main(["unlearn", *words, *TRAINING, *FEW, "--split", "odd", "--output_dir", run]) == 0
        record = json.loads((tmp_path / "run" / "run.json").read_text())
        assert record["data"]["benchmark"] == "capitals"
        assert record["data"]["trained_on"]["forget"]["rows"] == 6
        assert record["configuration"]["max_length"] == 77
        assert read_result(Path(run) / "evaluation.json")[0]["benchmark"] == "capitals"
        assert main(["evaluate", "--model_name_or_path", run, *FEW]) == 0
        assert (Path(run) / "evaluations" / "capitals_odd" / "samples.parquet").is_file()
        capsys.readouterr()
        assert main(["evaluate", "--from_log", run]) == 0
        assert "forget_prob" in capsys.readouterr().out
        other = ["--output_dir", str(tmp_path / "other")]
        assert main(["unlearn", *words, *TRAINING, "--protocol", "official", *other]) == BAD_INPUT
        assert "protocol: 'official' has no effect on benchmark capitals" in capsys.readouterr().err
    assert main(["evaluate", "--from_log", run]) == BAD_INPUT
    assert "benchmark: 'capitals' is not known" in capsys.readouterr().err


def test_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    def run(words: Sequence[str]) -> int:
        print("counted", len(words))
        return 0

    with registered(VERBS, "count", Verb(run, "Count words.")):
        assert main(["--help"]) == 0
        assert "count     Count words." in capsys.readouterr().out
        assert main(["count", "--help"]) == 0
        assert "usage: unlearn-hf count" in capsys.readouterr().out
        assert main(["count", "a", "b"]) == 0
        assert capsys.readouterr().out == "counted 2\n"
    assert main(["count"]) == BAD_INPUT


class Longest(Attack):
    """Minus the longest run of predicted tokens."""

    summary = "the least likely token"
    paper = "nobody, 2024"

    def score(self, tokens: TokenScores) -> float | None:
        return -tokens.log.min().item() if len(tokens.log) else None


class Weight(Attack):
    """The same number for every text of a set."""

    summary = "the size of the model"
    paper = "nobody, 2024"
    needs = "pass"
    cost = "a look at every weight"

    def scores(self, run: AttackPass) -> Mapping[tuple[str, int], float]:
        size = float(sum(each.numel() for each in run.model.parameters()))
        return {(each.split, i): size for each in run.requests for i in range(len(each.rows))}


def test_an_attack(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--model_name_or_path", model, "--benchmark", "tofu", "--source", "mini", *FEW]
    with registered(ATTACKS, "least_likely", Longest()), registered(ATTACKS, "weight", Weight()):
        assert main(["list", "attacks", "metrics"]) == 0
        listed = capsys.readouterr().out
        assert "weight: by the size of the model; costs a look at every weight" in listed
        assert "mia_least_likely_auc: AUC of the membership attack by the least likely token" in listed
        assert main([*words, "--output_dir", str(tmp_path), "--attacks", "weight"]) == 0
        _, values = read_result(tmp_path / "evaluation.json")
        assert values["mia_weight_auc"].value == 0.5
        assert values["mia_least_likely_auc"].interval is not None
        samples = read_result_samples(tmp_path / "evaluation.json")
        assert samples is not None
        assert samples.loc[samples["split"] == "holdout", "least_likely"].notna().all()
        assert main(["evaluate", "--from_log", str(tmp_path)]) == 0
        assert "mia_weight_auc" in capsys.readouterr().out
    assert main([*words, "--attacks", "weight"]) == BAD_INPUT
    assert "attacks: 'weight' is not known" in capsys.readouterr().err


class Louder(AuditAttack):
    """The measures again with all weights a hundredth larger."""

    summary = "all weights a hundredth larger"
    paper = "nobody, 2024"
    compared_by = "Q"
    changes_model = True

    def findings(self, run: AuditPass, variant: str) -> Findings:
        model = run.copied_model()
        for parameter in model.parameters():
            parameter.data *= 1.01
        return run.measured(model, run.forget)


def test_an_audit_attack(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    words = ["--model_name_or_path", model, "--benchmark", "tofu", "--source", "mini", *FEW, "--verdict", "false"]
    assert main(["unlearn", *words, *TRAINING, "--output_dir", run]) == 0
    with registered(AUDIT_ATTACKS, "louder", Louder()):
        assert main(["list", "audit_attacks"]) == 0
        assert "louder: all weights a hundredth larger" in capsys.readouterr().out
        assert main(["audit", run, "--attacks", "louder"]) == 0
        printed = capsys.readouterr().out
        assert "\nlouder " in printed
        content = json.loads((tmp_path / "run" / "audit.json").read_text())
        assert content["attacks"]["louder"]["paper"] == "nobody, 2024"
        entry = next(each for each in content["results"] if each["attack"] == "louder")
        assert entry["measure"] == "probability"
        assert entry["n"] == 3
        assert entry["after"]["value"] != entry["before"]["value"]
    assert main(["audit", run, "--attacks", "louder", "--overwrite"]) == BAD_INPUT
    assert "'louder' is not known" in capsys.readouterr().err


class AnswerLength(Metric):
    """Characters of the generated answers."""

    name = "forget_length"
    summary = "mean number of characters of greedy answers on forget"
    paper = "nobody, 2024"
    higher_is_better = True
    inputs: ClassVar[dict[str, Any]] = {"predictions": "text"}
    columns: ClassVar[dict[str, str]] = {"predictions": "generation"}

    def per_sample(self, *, predictions: Sequence[str]) -> Any:  # type: ignore[override]
        return np.array([len(text) for text in predictions], dtype=np.float64)


def test_a_metric(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model_name_or_path", model, "--benchmark", "tofu", "--source", "mini", *FEW]
    with registered(METRICS, "forget_length", AnswerLength):
        alone = load_metric("forget_length").compute(predictions=["four", "eleven text"])
        assert alone["forget_length"] == 7.5
        assert main(["list", "metrics"]) == 0
        assert "forget_length: mean number of characters" in capsys.readouterr().out
        run = tmp_path / "run"
        assert main(["unlearn", *words, *TRAINING, "--output_dir", str(run)]) == 0
        assert json.loads((run / "run.json").read_text())["metrics"]["forget_length"] > 0
        assert "| forget_length |" in (run / "README.md").read_text()
        _, values = read_result(run / "evaluation.json")
        samples = read_result_samples(run / "evaluation.json")
        assert samples is not None
        lengths = samples.loc[samples["split"] == "forget", "generation"].str.len()
        assert (values["forget_length"].value, values["forget_length"].n) == (lengths.mean(), 3)
        capsys.readouterr()
        assert main(["evaluate", "--from_log", str(run)]) == 0
        assert "forget_length" in capsys.readouterr().out
        with pytest.raises(ValueError, match=r"forget_length needs generation of forget, which 1 of 2 rows lack"):
            added_metrics(pd.DataFrame({"split": "forget", "index": [0, 1], "generation": ["a", None]}))


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="verb: 'list' is there already"):
        VERBS.register("list", Verb(len, "Again."))
    with pytest.raises(ValueError, match=r"attack: 'min-k' is not known; did you mean min_k\?"):
        ATTACKS.find("min-k")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--reference absent.json", "retain_results: 'absent.json' is not there"),
        ("--reference_model ./absent", "attack_model: './absent' is not there"),
        ("--gradient_norm_attack --source nowhere", "source: 'nowhere'"),
    ],
)
def test_old_names_serve_for_one_version(
    old: str, new: str, model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--model_name_or_path", model, "--benchmark", "tofu", "--output_dir", str(tmp_path / "out")]
    with pytest.warns(FutureWarning, match="is now --"):
        assert main(["evaluate", *words, *old.split()]) == BAD_INPUT
    assert new in capsys.readouterr().err
