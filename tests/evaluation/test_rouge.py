"""ROUGE: the pairs of the official logs, and a second implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unlearn_hf.evaluation.metrics.rouge import RougeF1, RougeF1Percent, RougeRecall, rouge_scores

PAIRS = [
    ("Ada Moren wrote three books in Oslo.", "Ada Moren wrote two books."),
    ("", "Ada Moren wrote two books."),
    ("books books books", "The book of books was written by her."),
    ("Completely different", "Ada Moren"),
]


def test_by_hand() -> None:
    # Four of the five reference words appear in order; six of seven words are hypothesis words.
    assert rouge_scores(["a b c d e f"], ["a b x d e"]) == [pytest.approx(4 / 5)]
    assert rouge_scores(["a b c d e f"], ["a b x d e"], measure="precision") == [pytest.approx(4 / 6)]
    assert rouge_scores(["e d b a"], ["a b x d e"], "rouge1") == [pytest.approx(4 / 5)]
    assert rouge_scores(["e d b a"], ["a b x d e"]) == [pytest.approx(1 / 5)]
    assert rouge_scores(["writing"], ["writes"]) == [1.0]
    assert rouge_scores(["writing"], ["writes"], use_stemmer=False) == [0.0]
    assert rouge_scores([""], ["a"]) == [0.0]


def test_the_mean_of_the_values() -> None:
    predictions, references = (list(texts) for texts in zip(*PAIRS, strict=True))
    for metric, scale in ((RougeRecall(), 1), (RougeF1(), 1), (RougeF1Percent(), 100)):
        found = metric.compute(predictions=predictions, references=references)
        values = found[f"{metric.key}_values"]
        assert found[metric.key] == pytest.approx(scale * sum(values) / 4)
        assert values[1] == 0.0


def test_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match="1 texts for 2 references"):
        rouge_scores(["a"], ["a", "b"])


def test_against_torchmetrics() -> None:
    module = pytest.importorskip("torchmetrics.functional.text.rouge", exc_type=ImportError)
    for prediction, reference in PAIRS:
        try:
            other = module.rouge_score(prediction, reference, use_stemmer=True, rouge_keys=("rouge1", "rougeL"))
        except (ModuleNotFoundError, LookupError, OSError) as problem:  # its sentence splitter wants nltk's data
            pytest.skip(f"torchmetrics cannot run here: {problem}")
        for rouge_type in ("rouge1", "rougeL"):
            for measure in ("recall", "precision", "fmeasure"):
                ours = rouge_scores([prediction], [reference], rouge_type, measure)[0]  # type: ignore[arg-type]
                assert ours == pytest.approx(other[f"{rouge_type}_{measure}"].item(), abs=1e-6)


def test_pairs_of_the_official_logs(data_root: Path) -> None:
    lines = (data_root / "eval_logs" / "rouge_pairs.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    assert len(pairs) == 100
    predictions, references = [pair["generation"] for pair in pairs], [pair["reference"] for pair in pairs]
    assert rouge_scores(predictions, references) == [pair["rougeL_recall"] for pair in pairs]
    plain = rouge_scores(predictions, references, use_stemmer=False)
    assert plain == [pair["rougeL_recall_no_stemmer"] for pair in pairs]
    f1 = rouge_scores(predictions, references, measure="fmeasure", use_stemmer=False)
    assert f1 == [pair["rougeL_f1_no_stemmer"] for pair in pairs]
