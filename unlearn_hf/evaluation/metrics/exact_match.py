"""Whether an answer is the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unlearn_hf.evaluation.metrics.base import Kind, Metric


class ExactMatch(Metric):
    """Share of answers that are the reference, without outer spaces and case: LUME's."""

    inputs: ClassVar[Mapping[str, Kind]] = {"predictions": "text", "references": "text"}
    definition = "stripped_lower_case"

    def per_sample(self, **inputs: Any) -> NDArray[np.float64]:
        """1 or 0 for each row, shape `[n]`."""
        predictions, references = (_plain(inputs[name]) for name in ("predictions", "references"))
        return np.array([float(one == other) for one, other in zip(predictions, references, strict=True)])


def _plain(texts: Sequence[str]) -> list[str]:
    return [text.strip().lower() for text in texts]
