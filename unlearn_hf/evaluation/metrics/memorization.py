"""Memorisation of an answer, from which of its tokens are the most likely ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from unlearn_hf.evaluation.metrics.base import Kind, Metric


class _OfTokens(Metric):
    inputs: ClassVar[Mapping[str, Kind]] = {"predictions": "tokens", "references": "tokens"}

    def of_matches(self, match: NDArray[np.bool_]) -> float:
        """The value of one answer, from which of its tokens were predicted, shape `[T]`."""
        raise NotImplementedError

    def per_sample(  # type: ignore[override]
        self, *, predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]]
    ) -> NDArray[np.float64]:
        """One value per answer, shape `[n]`.

        Args:
            predictions: the most likely token at each place of each answer, the tokens before it given.
            references: the tokens of the answers, without an end of sequence.
        """
        pairs = zip(predictions, references, strict=True)
        return np.array([self.of_matches(np.equal(mine, theirs)) for mine, theirs in pairs])


class ExtractionStrength(_OfTokens):
    """1 - k/n, k the first place from which on every one of n tokens is predicted; 0 when not even the last is."""

    definition = "zero_without_match"

    def of_matches(self, match: NDArray[np.bool_]) -> float:
        """See the class."""
        misses = np.flatnonzero(~match)
        return 1 - (int(misses[-1]) + 1 if misses.size else 0) / match.size


class ExactMemorization(_OfTokens):
    """Share of tokens that are predicted."""

    definition = "teacher_forced"

    def of_matches(self, match: NDArray[np.bool_]) -> float:
        """See the class."""
        return float(match.mean())
