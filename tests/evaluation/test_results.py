from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.evaluation.tables import tofu_table
from unlearn_hf.benchmarks.benchmark_of_log import benchmark_of
from unlearn_hf.benchmarks.from_logs import evaluate_from_log, read_log, recompute, recompute_values
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.evaluation.metric_value import flatten, metric_value
from unlearn_hf.evaluation.results import read_result, read_result_samples, write_results


def awkward_table() -> pd.DataFrame:
    """Floats that survive only an exact round trip, lists of different lengths, text, and missing entries."""
    table = tofu_table()
    table["answer_mean_nll"] *= 1 + 2**-50
    table["generation"] = [f"Zoë said “{i}”\n" if i % 2 else None for i in range(len(table))]
    table.at[0, "perturbed_mean_nll"] = [0.1 + 0.2, 1 / 3, 1e-300]
    table["perturbed_tokens"] = [[4, 5] if i < 12 else None for i in range(len(table))]
    return table


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    table = awkward_table()
    values = aggregate_tofu(table, table, settings={"max_new_tokens": 200}, fingerprint="abc")
    path = write_results(tmp_path / "run", values, table, benchmark="tofu", fingerprint="abc")
    record, again = read_result(path)
    assert again == values
    assert {"scipy", "scikit-learn", "rouge-score"} <= set(record["versions"])
    samples = read_result_samples(path)
    assert list(samples.columns) == list(table.columns)
    for name in table:
        for ours, theirs in zip(table[name], samples[name], strict=True):
            if isinstance(ours, list):
                assert [value.hex() if isinstance(value, float) else value for value in ours] == [
                    value.hex() if isinstance(value, float) else value for value in theirs
                ]
            else:
                assert ours == theirs or (pd.isna(ours) and pd.isna(theirs))
    assert flatten(aggregate_tofu(samples, samples)) == flatten(values)


def test_own_results_are_logs_and_references(tmp_path: Path) -> None:
    table = tofu_table()
    values = aggregate_tofu(table, protocol="official", compatibility="open_unlearning", fingerprint="abc")
    path = write_results(
        tmp_path, values, table, benchmark="tofu", protocol="official", compatibility="open_unlearning",
        fingerprint="abc",
    )  # fmt: skip
    again = recompute_values(path)
    assert again == values
    assert {value.fingerprint for value in again.values()} == {"abc"}
    assert recompute(tmp_path, path)["forget_quality"] == 1
    parquet = tmp_path / "samples.parquet"
    assert recompute(parquet, path)["model_utility"] == flatten(values)["model_utility_geometric"]
    output = evaluate_from_log(path, output_file=tmp_path / "out.json")
    assert output == json.loads((tmp_path / "out.json").read_text()) == flatten(values)


def test_muse_results_keep_their_corpus(tmp_path: Path) -> None:
    rows = [{"split": split, "index": i, "min_k": i + (split == "holdout")} for split in ("forget", "holdout")
            for i in range(4)]  # fmt: skip
    rows += [{"split": "knowmem_retain", "index": i, "rouge_l_f1": i / 4} for i in range(4)]
    path = write_results(tmp_path, {}, pd.DataFrame(rows), benchmark="muse", settings={"corpus": "books"})
    values = recompute_values(path)
    assert values["privleak"].definition == "muse_constant_books"
    assert values["knowmem_retain"].value == 37.5
    assert benchmark_of(read_log(tmp_path / "samples.parquet")) == "muse"


def test_results_without_their_table(tmp_path: Path) -> None:
    table = tofu_table()
    values = aggregate_tofu(table)
    path = write_results(tmp_path, values, table, benchmark="tofu")
    write_results(tmp_path / "other", values, table.assign(min_k=0.0), benchmark="tofu")
    (tmp_path / "other/samples.parquet").replace(tmp_path / "samples.parquet")
    with pytest.raises(ValueError, match=r"samples.parquet is not the table that .*its hash differs"):
        recompute(path)
    (tmp_path / "samples.parquet").unlink()
    assert recompute_values(path) == values
    log = write_results(tmp_path / "log", values, table, benchmark="tofu")
    for arguments in ((log, path), (path, log)):
        with pytest.raises(ValueError, match=r"its samples.parquet is not beside it"):
            recompute(*arguments)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="is no result file of unlearn_hf"):
        read_result(path)
    path.write_text(json.dumps({"format": "unlearn_hf.evaluation", "format_version": 99}))
    with pytest.raises(ValueError, match=r"format version 99.*Update unlearn_hf"):
        read_result(path)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "samples.parquet")
    with pytest.raises(ValueError, match=r"must have split and index"):
        read_log(tmp_path / "samples.parquet")
    infinite = metric_value("forget_quality_log10", -math.inf, 3, "geometric")
    with pytest.raises(ValueError, match=r"\['forget_quality_log10'\] are not finite"):
        write_results(tmp_path, {infinite.name: infinite}, tofu_table(), benchmark="tofu")


def test_importing_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, unlearn_hf.benchmarks.from_logs; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_numpy_numbers_are_plain_in_json(tmp_path: Path) -> None:
    value = metric_value("forget_prob", np.float32(0.1), np.int64(3), "mean")
    path = write_results(tmp_path, {value.name: value}, tofu_table(), benchmark="tofu")
    assert read_result(path)[1]["forget_prob"].value == float(np.float32(0.1))
