"""ROUGE as `evaluate.Metric`s that need no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import datasets
import evaluate
from rouge_score.rouge_scorer import RougeScorer

Measure = Literal["recall", "precision", "fmeasure"]


def rouge_scores(
    predictions: Sequence[str],
    references: Sequence[str],
    rouge_type: str = "rougeL",
    measure: Measure = "recall",
    use_stemmer: bool = True,
) -> list[float]:
    """ROUGE of each prediction against its reference, in [0, 1].

    Args:
        predictions: generated texts.
        references: what they should say.
        rouge_type: `rougeL` or `rouge1`.
        measure: `recall` (TOFU) or `fmeasure` (MUSE).
        use_stemmer: Porter stemming: on for TOFU, off for MUSE's own numbers.

    Raises:
        ValueError: when the two lists differ in length.
    """
    if len(predictions) != len(references):
        raise ValueError(f"predictions: {len(predictions)} texts for {len(references)} references; give one each.")
    scorer = RougeScorer([rouge_type], use_stemmer=use_stemmer)
    return [
        float(getattr(scorer.score(reference, prediction)[rouge_type], measure))
        for prediction, reference in zip(predictions, references, strict=True)
    ]


class _Rouge(evaluate.Metric):
    """Base of the ROUGE metrics: subclasses say which."""

    rouge_type = "rougeL"
    measure: Measure = "recall"
    use_stemmer = True

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=f"{self.rouge_type} {self.measure}, {'with' if self.use_stemmer else 'without'} stemming",
            citation="Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004",
            inputs_description="predictions and references: lists of texts",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[str], **_: Any) -> dict[str, Any]:
        scores = rouge_scores(predictions, references, self.rouge_type, self.measure, self.use_stemmer)
        return {"mean": sum(scores) / len(scores), "scores": scores}


class RougeLRecall(_Rouge):
    """TOFU's ROUGE: rougeL recall with stemming."""


class Rouge1Recall(_Rouge):
    """rouge1 recall with stemming."""

    rouge_type = "rouge1"


class RougeLF1(_Rouge):
    """MUSE's ROUGE: rougeL F1 without stemming."""

    measure: Measure = "fmeasure"
    use_stemmer = False
