"""Probability of an answer, by itself or among options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unlearn_hf.evaluation.metrics.base import Kind, Metric


class AnswerProbability(Metric):
    """P(answer)^(1/tokens) = exp(-a) from the mean token NLL a of each answer."""

    def per_sample(self, *, predictions: Sequence[float]) -> NDArray[np.float64]:  # type: ignore[override]
        """Probability of each answer, shape `[n]`.

        Args:
            predictions: mean token NLL of each answer, nats.
        """
        return np.exp(-np.asarray(predictions, dtype=np.float64))


class ChoiceProbability(Metric):
    """P(right) / (P(right) + sum_j P(wrong_j)), with P = exp(-mean NLL)."""

    inputs: ClassVar[Mapping[str, Kind]] = {"predictions": "number", "references": "numbers"}

    def per_sample(self, *, predictions: Sequence[float], references: Sequence[Any]) -> NDArray[np.float64]:  # type: ignore[override]
        """Share of the right answer, shape `[n]`.

        Args:
            predictions: mean token NLL of the right answer of each row, nats.
            references: those of its wrong answers.

        Raises:
            ValueError: if all options of a row have likelihood zero.
        """
        shares = []
        for right, wrong in zip(predictions, references, strict=True):
            options = -np.concatenate([[right], np.asarray(wrong, dtype=np.float64)])
            if not np.isfinite(options).any():
                name = self.key.removesuffix("_prob")
                raise ValueError(f"all options have likelihood zero in a row of {name}: diverged model?")
            shares.append(np.exp(options[0] - np.logaddexp.reduce(options)))
        return np.asarray(shares, dtype=np.float64)


class WrongProbability(Metric):
    """Mean of P(wrong)^(1/tokens) = exp(-a) over the wrong answers of each row."""

    inputs: ClassVar[Mapping[str, Kind]] = {"predictions": "numbers"}

    def per_sample(self, *, predictions: Sequence[Any]) -> NDArray[np.float64]:  # type: ignore[override]
        """Mean probability of the wrong answers, shape `[n]`.

        Args:
            predictions: mean token NLL of the wrong answers of each row, nats.
        """
        return np.array([np.mean(np.exp(-np.asarray(row, dtype=np.float64))) for row in predictions])
