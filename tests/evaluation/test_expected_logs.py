"""Every value of expected.json, from the numbers of published logs beside it. No leaf may go unchecked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlearn_hf.benchmarks.from_logs import evaluate_from_log, read_log, recompute, recompute_values
from unlearn_hf.evaluation.metrics.statistics import kolmogorov_smirnov
from unlearn_hf.evaluation.metrics.truth_ratio import rows_truth_ratio
from unlearn_hf.evaluation.sample_table import split_rows

SHORT = {"ra": "real_authors", "wf": "world_facts", "retain": "retain", "forget": "forget"}
PARTS = {"rouge": "rouge", "prob": "prob", "tr": "truth_ratio"}
PARTS |= {"Q_A_Prob": "prob", "Q_A_Prob_normalised": "prob", "Q_A_ROUGE": "rouge", "Truth_Ratio": "truth_ratio"}
SET_VALUES = {
    "prob": "prob",
    "rougeL_recall": "rouge",
    "truth_ratio_geo": "truth_ratio",
    "truth_ratio_arith": "truth_ratio_arithmetic",
    "truth_ratio_ou": "truth_ratio_open_unlearning",
    "truth_ratio_prob_mean": "truth_ratio_prob_mean",
}
UTILITIES = {
    "model_utility_geo": "model_utility",
    "model_utility_arith": "model_utility_arithmetic",
    "model_utility_ou": "model_utility_open_unlearning",
}
OPEN_UNLEARNING = {
    "model_utility": "model_utility",
    "forget_Q_A_Prob": "forget_prob",
    "forget_truth_ratio": "forget_truth_ratio",
    "forget_truth_ratio_prob_mean_variant": "forget_truth_ratio_prob_mean",
    "forget_truth_ratio_arith_variant": "forget_truth_ratio_arithmetic",
    "forget_quality": "forget_quality",
    "ks_statistic": "forget_quality_statistic",
    "privleak_vs_retain": "privleak",
    "privleak_vs_0.5": "privleak_versus_half",
    "privleak_vs_retrain": "privleak_open_unlearning_news",
    "privleak_vs_official_constant": "privleak_muse_news",
    "official_auc_convention": "mia_min_k_auc_muse",
    "extraction_strength": "extraction_strength",
    "exact_memorization": "exact_memorization",
}
FORGET_QUALITY = {
    "forget_quality_pvalue": "forget_quality",
    "log10_pvalue": "forget_quality_log10",
    "ks_statistic": "forget_quality_statistic",
    "pvalue_arith": "forget_quality_arithmetic",
    "ks_statistic_arith": "forget_quality_statistic_arithmetic",
    "pvalue_open_unlearning": "forget_quality_open_unlearning",
}
ROUGES = {
    "forget_Q_A_ROUGE": "forget_rouge",
    "forget_verbmem_ROUGE": "forget_verbmem_rouge",
    "forget_knowmem_ROUGE": "forget_knowmem_rouge",
    "retain_knowmem_ROUGE": "retain_knowmem_rouge",
}
# Texts were removed from these cuts, so generations cannot be scored again here; tests of ROUGE use rouge_pairs.jsonl.
NEED_TEXTS = {"agg_rescored_no_stemmer", "max_abs_diff_stemmer"}
HERE = Path(__file__).with_name("expected_logs")
ROWS = {"forget01": 40, "forget05": 200, "forget10": 400}


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, node


def close(computed: float, expected: float, path: tuple[str, ...]) -> None:
    pvalue = "pvalue" in path[-1] or path[-1] == "forget_quality"
    tolerance = {"rel": 1e-9, "abs": 0} if pvalue else {"rel": 1e-12, "abs": 1e-9}
    assert computed == pytest.approx(expected, **tolerance), path


@pytest.fixture(scope="module")
def logs(data_root: Path) -> Path:
    """The same and more logs, among the real data."""
    return data_root / "eval_logs"


@cache
def values(log: Path, reference: Path | None = None, **options: str) -> dict[str, Any]:
    return recompute_values(log, reference, **options)


@cache
def read(log: Path) -> Any:
    return read_log(log)


def check_set(logs: Path, path: tuple[str, ...], expected: Any) -> None:
    container, name, _, split, key = path
    log = logs / container / f"{name}.json.gz"
    rows = split_rows(read(log).samples, split)
    ratio = rows_truth_ratio(rows, "geometric")
    others: dict[str, Callable[[], float]] = {
        "n": lambda: len(rows),
        "k_perturbed": lambda: len(rows["perturbed_mean_nll"].iloc[0]),
        "aligned_keys": lambda: rows["index"].tolist() == list(range(len(rows))),  # of all columns
        "nan_values": lambda: int(rows.dropna(axis="columns", how="all").isna().sum().sum()),
        "mean_R_geo": lambda: float(np.mean(ratio)),
        "median_R_geo": lambda: float(np.median(ratio)),
        "max_abs_rel_diff_logged_truth_ratio_vs_R_geo": lambda: float(
            np.max(np.abs(rows["logged_truth_ratio"] - ratio) / ratio)
        ),
        "prob_ou": lambda: values(log, compatibility="open_unlearning")[f"{split}_prob"].value,
    }
    if key in SET_VALUES:
        result = values(log)[f"{split}_{SET_VALUES[key]}"]
        assert result.n == len(rows)
        close(result.value, expected, path)
    else:
        close(others[key](), expected, path)


def check_tofu(logs: Path, path: tuple[str, ...], expected: Any) -> None:
    container, name, key, *rest = path
    log = logs / container / f"{name}.json.gz"
    if key == "sets":
        check_set(logs, path, expected)
    elif key == "model_utility_nine_geo":
        split, part = rest[0].split("_")
        close(values(log)[f"{SHORT[split]}_{PARTS[part]}"].value, expected, path)
    elif key == "forget_eval_split":
        assert len(split_rows(read(log).samples, "forget")) == min(300, ROWS[expected])
    else:
        close(values(log)[UTILITIES[key]].value, expected, path)


def check_open_unlearning(logs: Path, path: tuple[str, ...], expected: Any) -> None:
    _, name, key, *rest = path
    folder = logs / "open_unlearning"
    log = folder / f"{name}.json.gz"
    reference = folder / "tofu_Llama-3.2-1B-Instruct_retain90.json.gz" if name.startswith("tofu") else None
    results = values(log, reference)
    if key == "forget_split":
        assert results["forget_prob"].n == ROWS[expected]
    elif key == "reference_log":
        assert reference is not None
        assert expected.split("/")[0] in reference.name
    elif key == "corpus":
        assert f"privleak_muse_{expected.lower()}" in results
    elif key == "nine":
        split, part = rest[0].split("_", 1)
        close(results[f"{SHORT[split]}_{PARTS[part]}"].value, expected, path)
    elif key in ROUGES:
        result = results[ROUGES[key]]
        if rest[0] in NEED_TEXTS:
            return
        checks = {"n": result.n, "agg_from_logged": result.value, "agg_rescored_stemmer": result.value}
        close(checks[rest[0]], expected, path)
    elif key.startswith("mia_"):
        attack = key.removeprefix("mia_").replace("gradnorm", "gradient_norm")
        samples = read(log).samples
        column = samples.loc[samples[attack].notna(), "split"].value_counts()
        checks = {
            "auc": results[f"mia_{attack}_auc"].value,
            "n_forget": column["forget"],
            "n_holdout": column["holdout"],
        }
        close(checks[rest[0]], expected, path)
    else:
        close(results[OPEN_UNLEARNING[key]].value, expected, path)


def check_forget_quality(logs: Path, path: tuple[str, ...], expected: Any) -> None:
    _, pair, key = path
    log, reference = (logs / f"{side}.json.gz" for side in pair.split(" vs "))
    results = values(log, reference)
    mine, theirs = (split_rows(read(side).samples, "forget") for side in (log, reference))
    ratios = [rows_truth_ratio(rows, "geometric") for rows in (mine, theirs)]
    others: dict[str, Callable[[], float]] = {
        "n_model": lambda: len(mine),
        "n_reference": lambda: len(theirs),
        "same_prompts": lambda: mine["answer_tokens"].tolist() == theirs["answer_tokens"].tolist(),
        "pvalue_on_R_instead_of_1/R": lambda: kolmogorov_smirnov(*(1 / ratio for ratio in ratios)).pvalue,
    }
    if key == "forget_split":
        assert len(mine) == min(300, ROWS[expected])
    elif key in FORGET_QUALITY:
        close(results[FORGET_QUALITY[key]].value, expected, path)
    else:
        close(others[key](), expected, path)


def check_all(logs: Path) -> int:
    """Check every value, and say how many there were."""
    check = {
        "tofu_official": check_tofu,
        "tofu_list_format": check_tofu,
        "open_unlearning": check_open_unlearning,
        "forget_quality": check_forget_quality,
    }
    count = 0
    for path, value in leaves(json.loads((logs / "expected.json").read_text())):
        check[path[0]](logs, path, value)  # an unknown key is a KeyError: nothing is skipped
        count += 1
    return count


def test_every_expected_value() -> None:
    assert check_all(HERE) > 150


def test_every_expected_value_of_the_real_data(logs: Path) -> None:
    assert check_all(logs) > 300


def test_published_rows() -> None:
    """Rows of the tables in TOFU's leaderboard logs: utility, forget ROUGE, Prob, truth ratio."""
    full, retain = (HERE / f"tofu_official/llama2-7b_{name}.json.gz" for name in ("full", "retain90"))
    found = {"full": recompute(full, retain), "retain": recompute(retain)}
    names = ("model_utility", "model_utility_arithmetic", "forget_rouge", "forget_prob", "forget_truth_ratio")
    published = {"full": (0.6227, 0.5859, 0.985, 0.991, 0.516), "retain": (0.6137, 0.5752, 0.408, 0.148, 0.674)}
    for model, values in published.items():
        for name, value in zip(names, values, strict=True):
            assert round(found[model][name], 4 if "utility" in name else 3) == value
    assert found["full"]["forget_quality"] == pytest.approx(1.83e-21, rel=3e-3)


def test_prob_mean_log_against_itself_and_an_older_log(logs: Path, tmp_path: Path) -> None:
    """The framework's own p-value of this pair is 4.3e-12: it compares ratios of two definitions."""
    import gzip

    path = logs / "open_unlearning/tofu_Llama-3.2-1B-Instruct_retain90.json.gz"
    log = json.loads(gzip.decompress(path.read_bytes()))
    right, wrong = log["forget_Q_A_PARA_Prob"]["value_by_index"], log["forget_Q_A_PERT_Prob"]["value_by_index"]
    for index, value in log["forget_truth_ratio"]["value_by_index"].items():
        p, w = np.exp(-right[index]["avg_loss"]), np.exp(-np.mean(wrong[index]["avg_loss"]))
        value["score"] = p / (p + w + 1e-10)
    scores = [value["score"] for value in log["forget_truth_ratio"]["value_by_index"].values()]
    log["forget_truth_ratio"]["agg_value"] = float(np.mean(scores))
    newer = tmp_path / "TOFU_EVAL.json"
    newer.write_text(json.dumps(log))
    result = recompute(newer, path)
    assert result["forget_quality"] == 1.0
    assert result["forget_truth_ratio"] == pytest.approx(0.6274597698541176, abs=1e-9)
    assert result["forget_truth_ratio_prob_mean"] == pytest.approx(np.mean(scores), abs=1e-12)

    del log["forget_Q_A_PARA_Prob"]  # now the log holds the new ratio alone
    newer.write_text(json.dumps(log))
    older = json.loads(gzip.decompress(path.read_bytes()))
    del older["forget_Q_A_PARA_Prob"], older["forget_Q_A_PERT_Prob"]
    scores_only = tmp_path / "older.json"
    scores_only.write_text(json.dumps(older))
    with pytest.raises(ValueError, match=r"prob_mean\) here, open_unlearning in the reference.*recomputed by one"):
        recompute(newer, scores_only)
    result = recompute(newer)
    assert "forget_truth_ratio" not in result
    assert result["forget_truth_ratio_logged"] == pytest.approx(np.mean(scores), abs=1e-12)
    assert recompute(scores_only, path)["forget_quality"] == 1.0  # the full log can be brought to the older ratio


def test_protocols_do_not_mix(logs: Path) -> None:
    official = logs / "tofu_official/llama2-7b_retain90.json.gz"
    every_row = logs / "open_unlearning/tofu_Llama-3.2-1B-Instruct_retain90.json.gz"
    with pytest.raises(ValueError, match=r"300 rows with a reference of 400 rows.*protocol='official'"):
        recompute(official, every_row)
    assert recompute_values(every_row, every_row, protocol="official")["forget_quality"].protocol == "official"


def test_flat_json_has_full_precision(logs: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out.json"
    log = logs / "tofu_official/llama2-7b_full.json.gz"
    result = evaluate_from_log(log, logs / "tofu_list_format/retain90_llama.json.gz", output)
    assert json.loads(output.read_text()) == result
    assert result["forget_quality"] == pytest.approx(1.096624314778916e-19, rel=1e-9)
    assert recompute(output) == result  # the flat file is a log of aggregates


@pytest.mark.parametrize("name", ["retain90", "full__evals_forget10"])
def test_every_probability_as_logged(name: str, logs: Path) -> None:
    path = logs / f"open_unlearning/tofu_Llama-3.2-1B-Instruct_{name}.json.gz"
    logged, found = read_log(path).logged, recompute(path)
    names = [name for name in logged if name.endswith("_prob")]
    assert len(names) == 4 + 2 + 4 + 2  # answers, paraphrases, wrong answers, answers among options
    for name in names:
        assert found[name] == pytest.approx(logged[name], rel=1e-6)
