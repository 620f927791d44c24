"""ROUGE-L: recall with stemming (TOFU), F1 without (MUSE)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from unlearn_hf.evaluation.metrics.base import Kind, Metric

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
    scorer = _scorer(rouge_type, use_stemmer)
    return [
        float(getattr(scorer.score(reference, prediction)[rouge_type], measure))
        for prediction, reference in zip(predictions, references, strict=True)
    ]


@cache
def _scorer(rouge_type: str, use_stemmer: bool) -> Any:
    """The library's scorer, which stems each word once: the same ones come again and again."""
    from nltk.stem.porter import PorterStemmer  # here, as it takes a while
    from rouge_score import rouge_scorer, tokenize, tokenizers

    stem = lru_cache(maxsize=2**16)(PorterStemmer().stem)

    class Tokenizer(tokenizers.Tokenizer):
        def tokenize(self, text: str) -> Any:
            return tokenize.tokenize(text, SimpleNamespace(stem=stem) if use_stemmer else None)

    return rouge_scorer.RougeScorer([rouge_type], tokenizer=Tokenizer())


class RougeRecall(Metric):
    """ROUGE-L recall with stemming: TOFU's."""

    inputs: ClassVar[Mapping[str, Kind]] = {"predictions": "text", "references": "text"}
    definition = "rouge_l_recall_stemmed"
    measure: Measure = "recall"
    use_stemmer = True

    def per_sample(self, *, predictions: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:  # type: ignore[override]
        """ROUGE of each prediction, shape `[n]`, in [0, 1]."""
        return np.array(rouge_scores(predictions, references, "rougeL", self.measure, self.use_stemmer))


class RougeF1(RougeRecall):
    """ROUGE-L F1 without stemming: MUSE's."""

    definition = "rouge_l_f1_unstemmed"
    measure: Measure = "fmeasure"
    use_stemmer = False


class RougeF1Percent(RougeF1):
    """The same times 100, as MUSE reports it."""

    def aggregate(self, values: Any) -> float:
        """100 times the mean."""
        return 100 * super().aggregate(values)
