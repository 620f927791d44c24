"""Logs that are damaged or hold impossible values are refused, with the file and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.logs import evaluation, official_log
from tests.evaluation.tables import tofu_table
from unlearn_hf.benchmarks.from_logs import read_log, recompute
from unlearn_hf.evaluation.results import write_results

RETAIN = "eval_log.json"


def with_value(content: dict[str, Any], *path: str, value: Any) -> dict[str, Any]:
    """The same content with one entry replaced."""
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


def refused(path: Path, content: Any, message: str) -> None:
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"log\.json.*{message}|{message}.*log\.json"):
        recompute(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("avg_gt_loss", -0.1, r"eval_log.json: avg_gt_loss\[1\] is -0.1, and must be .*at least 0"),
        ("avg_gt_loss", float("inf"), r"avg_gt_loss\[1\] is inf, and must be finite"),
        ("avg_paraphrased_loss", -2, r"avg_paraphrased_loss\[1\] is -2"),
        ("average_perturb_loss", [1.0, -2.0], r"average_perturb_loss\[1\] is -2.0"),
        ("rougeL_recall", 1.5, r"rougeL_recall\[1\] is 1.5, and must be .*at most 1"),
        ("rougeL_recall", -0.5, r"rougeL_recall\[1\] is -0.5"),
    ],
)
def test_impossible_values_of_tofu_logs(key: str, value: Any, message: str, tmp_path: Path) -> None:
    refused(tmp_path / "log.json", with_value(official_log(), RETAIN, key, "1", value=value), message)


def test_rounding_of_likelihoods_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text(json.dumps(with_value(official_log(), RETAIN, "avg_gt_loss", "1", value=-1e-7)))
    assert read_log(path).samples.query("split == 'retain'")["answer_mean_nll"].tolist()[1] == -1e-7


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "eval_log.json is 5, and must be an object"),
        (None, "eval_log.json is None, and must be"),
        ([], r"eval_log.json is \[\], and must be"),
        ({}, "no rows"),
        ({"loss": 1}, "no rows"),
    ],
)
def test_known_names_without_a_set(value: Any, message: str, tmp_path: Path) -> None:
    refused(tmp_path / "log.json", with_value(official_log(), RETAIN, value=value), message)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("forget_Q_A_Prob", "value_by_index"), {"0": 5}, r"forget_Q_A_Prob\[0\] is 5, and must be"),
        (("forget_Q_A_ROUGE", "value_by_index"), {"0": 5}, r"forget_Q_A_ROUGE\[0\] is 5"),
        (("forget_truth_ratio", "value_by_index"), {"0": "x"}, r"forget_truth_ratio\[0\] is 'x'"),
        (("exact_memorization", "value_by_index"), [1], "value_by_index is list"),
        (("mia_min_k", "forget"), 5, "mia_min_k: forget is 5, and must be"),
        (("mia_min_k", "holdout"), [1], r"mia_min_k: holdout is \[1\]"),
        (("forget_Q_A_Prob", "value_by_index", "0", "avg_loss"), -1, r"forget_Q_A_Prob\[0\]: avg_loss is -1"),
        (("forget_Q_A_Prob", "value_by_index", "0", "prob"), 1.1, r"forget_Q_A_Prob\[0\]: prob is 1.1"),
        (("forget_Q_A_ROUGE", "value_by_index", "0", "rougeL_recall"), 2, r"\[0\]: rougeL_recall is 2"),
    ],
)
def test_broken_open_unlearning_logs(path: tuple[str, ...], value: Any, message: str, tmp_path: Path) -> None:
    refused(tmp_path / "log.json", with_value(evaluation(), *path, value=value), message)


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda record: record.pop(name)


REQUIRED = ("metrics", "samples", "format_version", "benchmark", "protocol", "compatibility")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *[(without(name), f"lacks .*{name}") for name in REQUIRED],
        (lambda record: record.update(format_version="1"), "format_version: '1' is not known"),
        (lambda record: record.update(format_version=2), "format version 2.*Update"),
        (lambda record: record.update(benchmark=5), "benchmark is 5, and must be a name"),
        (lambda record: record.update(benchmark=""), "benchmark is '', and must be a name"),
        (lambda record: record.update(protocol="x"), "protocol: 'x' is not known; choose one of all, official"),
        (lambda record: record.update(compatibility="x"), "compatibility: 'x' is not known; choose one of None, open"),
        (lambda record: record.update(metrics={"a": 1}), "metrics is .*, and must be a list"),
        (lambda record: record.update(metrics=[5]), r"metrics\[0\] is 5"),
        (lambda record: record.update(metrics=[{"name": "a"}]), "metric record 'a' cannot be read: .*missing"),
        (lambda record: record.update(samples="x"), "samples is 'x', and must be an object"),
        (lambda record: record.update(samples={}), "samples lacks file"),
        (lambda record: record.update(samples={"file": "samples.parquet"}), "samples lacks sha256"),
        (lambda record: record.update(settings=[]), r"settings is \[\], and must be an object"),
        (lambda record: record.update(settings=5), "settings is 5, and must be an object"),
    ],
)
def test_broken_results(damage: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path) -> None:
    path = write_results(tmp_path, {}, tofu_table(), benchmark="tofu")
    record = json.loads(path.read_text())
    damage(record)
    refused(tmp_path / "log.json", record, message)


def test_settings_may_be_absent(tmp_path: Path) -> None:
    path = write_results(tmp_path, {}, tofu_table(), benchmark="tofu")
    record = json.loads(path.read_text())
    for name in ("settings", "fingerprint"):
        del record[name]
    path.write_text(json.dumps(record))
    assert "forget_prob" in recompute(path)


@pytest.mark.parametrize("content", [b"", b"no table", b"PAR1 and nothing more PAR1"])
def test_broken_tables(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"samples\.parquet is no table that can be read"):
        read_log(path)
    with pytest.raises(ValueError, match=r"there is no file .*absent\.parquet"):
        read_log(tmp_path / "absent.parquet")
