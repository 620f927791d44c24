"""Forget quality: is the model told apart from one that never saw the forget set?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from unlearn_hf.evaluation.metrics.base import Kind, Metric
from unlearn_hf.evaluation.metrics.statistics import KolmogorovSmirnov, kolmogorov_smirnov


class ForgetQuality(Metric):
    """p-value (its logarithm, or the distance) of the Kolmogorov-Smirnov test between truth ratios of two models."""

    inputs: ClassVar[Mapping[str, Kind]] = {"predictions": "number", "references": "number"}
    definition = "geometric"

    def of_test(self, test: KolmogorovSmirnov) -> float:
        """The part of the test that carries this metric's name."""
        if self.key.endswith("_statistic"):
            return test.statistic
        return float(np.log10(test.pvalue)) if self.key.endswith("_log10") else test.pvalue

    def compute(  # type: ignore[override]
        self, *, predictions: Sequence[float], references: Sequence[float], **_: Any
    ) -> dict[str, Any]:
        """Truth ratios of the model against those of the retain model."""
        return {self.key: self.of_test(kolmogorov_smirnov(predictions, references))}
