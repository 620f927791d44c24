"""References of other data, over other rows, or with nothing to compare are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset

from tests.evaluation.logs import evaluation, muse_evaluation, official_log
from tests.evaluation.rows import tiny_tofu
from tests.evaluation.tables import attack_scores, muse_table, tofu_table
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.benchmarks.from_logs import read_reference, recompute
from unlearn_hf.benchmarks.muse.data import load_muse
from unlearn_hf.benchmarks.muse.evaluator import MuseEvaluator
from unlearn_hf.benchmarks.muse.metrics import aggregate_muse
from unlearn_hf.benchmarks.tofu.data import TofuData, load_tofu
from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.evaluation.results import write_results


def make(folder: Path, kind: str) -> Path:
    """A log of one kind; their names begin with the benchmark, where the content tells it."""
    contents: dict[str, Any] = {
        "tofu log": official_log(),
        "tofu open-unlearning": evaluation(),
        "muse open-unlearning": muse_evaluation(),
        "muse summary": {"forget_verbmem_ROUGE": 0.5, "mia_min_k": 0.75},
        "tofu summary": {"model_utility": 0.5, "mia_min_k": 0.75},
        "unknown open-unlearning": {"mia_min_k": evaluation()["mia_min_k"]},
        "unknown summary": {"mia_min_k": 0.75},
    }
    folder = folder / kind
    if kind in contents:
        folder.mkdir(exist_ok=True)
        path = folder / "log.json"
        path.write_text(json.dumps(contents[kind]))
        return path
    benchmark, _, rest = kind.partition(" ")
    table = muse_table() if benchmark == "muse" else tofu_table()
    settings = {"corpus": rest.split()[0]} if benchmark == "muse" else {}
    path = write_results(folder, {}, table, benchmark=benchmark, settings=settings)
    return folder / "samples.parquet" if rest.endswith("parquet") else path


@pytest.mark.parametrize(
    ("log", "reference"),
    [
        ("tofu result", "muse news"),
        ("muse news", "tofu result"),
        ("muse news", "muse books"),
        ("muse news", "tofu log"),
        ("muse news", "tofu parquet"),
        ("tofu log", "muse news"),
        ("tofu result", "muse news parquet"),
        ("tofu open-unlearning", "muse open-unlearning"),
        ("muse open-unlearning", "tofu open-unlearning"),
        ("muse open-unlearning", "tofu result"),
        ("muse summary", "tofu summary"),
        ("tofu summary", "muse summary"),
    ],
)
def test_references_of_other_data_are_refused(log: str, reference: str, tmp_path: Path) -> None:
    names = [kind.split()[0] for kind in (reference, log)]
    with pytest.raises(ValueError, match=rf"^retain_results: .* is of {names[0]}.* is of {names[1]}.*same data"):
        recompute(make(tmp_path, log), make(tmp_path, reference))


@pytest.mark.parametrize(
    ("log", "reference"),
    [
        ("tofu result", "unknown open-unlearning"),
        ("muse news", "unknown open-unlearning"),
        ("muse news", "muse open-unlearning"),
        ("unknown open-unlearning", "muse news parquet"),
        ("unknown summary", "muse summary"),
        ("tofu summary", "unknown summary"),
    ],
)
def test_references_of_unknown_data_serve(log: str, reference: str, tmp_path: Path) -> None:
    assert "privleak" in recompute(make(tmp_path, log), make(tmp_path, reference))


@pytest.mark.parametrize("kind", ["muse news", "muse news parquet", "muse open-unlearning", "table"])
def test_reference_is_read_for_a_benchmark(kind: str, tmp_path: Path) -> None:
    reference = muse_table() if kind == "table" else make(tmp_path, kind)
    assert read_reference(reference) is not None
    assert read_reference(reference, "muse", "news") is not None
    with pytest.raises(ValueError, match=r"^retain_results: .* is of muse.* is of tofu"):
        read_reference(reference, "tofu")


RATIOS = tofu_table().drop(columns="min_k")
MIN_K = tofu_table()[["split", "index", "min_k"]]


@pytest.mark.parametrize(
    ("table", "reference", "message"),
    [
        (RATIOS, MIN_K, "evaluation has truth ratios of forget rows alone and the reference has Min-K scores"),
        (MIN_K, RATIOS, "evaluation has Min-K scores .* alone and the reference has truth ratios .* alone"),
        (RATIOS, RATIOS[RATIOS["split"] != "forget"], "the reference has neither truth ratios of forget rows nor"),
        (RATIOS[RATIOS["split"] != "forget"], tofu_table(), "the evaluation has neither"),
        (attack_scores([1, 4], [2, 3]), attack_scores([1, 2], [3, 4]), "its AUC is 1"),
    ],
)
def test_tofu_references_of_no_use(table: pd.DataFrame, reference: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=f"^retain_results: .*{message}"):
        aggregate_tofu(table, reference)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (RATIOS, "nothing to compare"),
        (muse_table().drop(columns="min_k"), "neither truth ratios of forget rows nor Min-K scores"),
        (attack_scores([1, 2, 3], [4, 5, 6]), "its AUC is 1"),
    ],
)
def test_muse_references_of_no_use(reference: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=f"^retain_results: .*{message}"):
        aggregate_muse(muse_table(), reference, corpus="news")


def cut(table: pd.DataFrame, split: str) -> pd.DataFrame:
    return table[~((table["split"] == split) & (table["index"] == 2))]


@pytest.mark.parametrize("split", ["forget", "holdout"])
def test_attacks_are_compared_over_the_same_rows(split: str) -> None:
    message = f"on {split} compares 3 rows with a reference of 2 rows"
    with pytest.raises(ValueError, match=message):
        aggregate_muse(muse_table(), cut(muse_table(), split))
    with pytest.raises(ValueError, match=message):
        aggregate_tofu(tofu_table(), cut(tofu_table(), split))
    texts = [f"Answer {index} of {split}." for index in range(3)]
    table, other = attack_scores([1, 2, 4], [2, 3, 3]), attack_scores([1, 2, 4], [2, 3, 3])
    table.loc[table["split"] == split, "reference_text"] = texts
    other.loc[other["split"] == split, "reference_text"] = [f"{text} Another one" for text in texts]
    with pytest.raises(ValueError, match=f"different {split} rows: only 0%"):
        aggregate_tofu(table, other)
    assert aggregate_tofu(table, attack_scores([1, 2, 4], [2, 3, 3]))["privleak"].value == 0  # a log without texts


def other_rows(part: str, change: dict[str, Any]) -> TofuData:
    """The tiny data with a change of all rows of one part."""
    tofu = tiny_tofu()
    rows = [{**row, **change} for row in tofu[part].to_list()]
    tofu[part] = Dataset.from_list(rows)
    return tofu


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("holdout", {"answer": "Nobody wrote it."}, r"holdout rows: 3 of 3 differ, first index \[0, 1, 2\]"),
        ("forget_perturbed", {"perturbed_answer": ["No.", "Never."]}, "forget rows: 3 of 3 differ"),
        ("forget_perturbed", {"question": "Who?"}, "forget rows: 3 of 3 differ"),
    ],
)
def test_values_of_other_rows_are_never_paired(
    part: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Be it wrong answers, questions, or holdout rows, which have no reference text in the table."""
    retain = TofuEvaluator(other_rows(part, change), max_new_tokens=2)
    retain(build_model(), build_tokenizer(), output_dir=tmp_path)
    with pytest.raises(ValueError, match=f"a reference compares different {message}"):
        TofuEvaluator(tiny_tofu(), retain_results=tmp_path, max_new_tokens=2)
    TofuEvaluator(tiny_tofu(), max_new_tokens=2)(build_model(), build_tokenizer(), output_dir=tmp_path / "ours")
    with pytest.raises(ValueError, match=message):
        recompute(tmp_path / "ours", tmp_path)


def test_a_retain_model_of_another_split_is_refused_on_shared_rows(tmp_path: Path) -> None:
    """`forget20` is judged by the rows of `forget10`, but the retain model of the latter knows the rest of it."""
    ten, twenty = (load_tofu(split, "mini") for split in ("forget10", "forget20"))
    assert ten["forget_perturbed"].to_list() == twenty["forget_perturbed"].to_list()
    options: dict[str, Any] = {"max_rows": 2, "max_new_tokens": 2}
    TofuEvaluator(ten, **options)(build_model(), build_tokenizer(), output_dir=tmp_path)
    assert TofuEvaluator(ten, retain_results=tmp_path, **options).reference is not None
    with pytest.raises(ValueError, match="is of tofu forget10, but the evaluation is of tofu forget20"):
        TofuEvaluator(twenty, retain_results=tmp_path, **options)


def test_other_texts_of_a_corpus_are_refused(tmp_path: Path) -> None:
    muse = load_muse("news", "mini")
    options: dict[str, Any] = {"max_rows": 2, "max_length": 128}
    muse["privleak_holdout"] = muse["privleak_holdout"].select(range(len(muse["privleak_holdout"]) - 1, -1, -1))
    MuseEvaluator(muse, **options)(build_model(), build_tokenizer(), output_dir=tmp_path)
    with pytest.raises(ValueError, match="different holdout rows: 2 of 2 differ"):
        MuseEvaluator(load_muse("news", "mini"), tmp_path, **options)
