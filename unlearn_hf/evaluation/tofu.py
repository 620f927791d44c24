"""TOFU's evaluation of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from unlearn_hf.data.tofu import TofuData
from unlearn_hf.evaluation.engine import Engine, SplitRequest
from unlearn_hf.evaluation.evaluator import TableEvaluator
from unlearn_hf.evaluation.generation import GenerationSettings
from unlearn_hf.evaluation.logs import read_reference
from unlearn_hf.evaluation.tables import OFFICIAL_ROWS, Protocol
from unlearn_hf.evaluation.tofu_metrics import Compatibility, aggregate_tofu
from unlearn_hf.evaluation.values import MetricValue

_PARTS = {
    "forget": ("forget_perturbed", ("answer", "paraphrase", "perturbed")),
    "retain": ("retain_perturbed", ("answer", "paraphrase", "perturbed")),
    "real_authors": ("real_authors", ("answer", "perturbed")),
    "world_facts": ("world_facts", ("answer", "perturbed")),
    "holdout": ("holdout", ("answer",)),
}


class TofuEvaluator(TableEvaluator):
    """Prob, ROUGE-L recall, truth ratio, model utility, forget quality, memorisation and privacy on TOFU.

    Args:
        tofu: the data.
        reference: evaluation of the retain model on the same forget rows, for forget quality and PrivLeak: a result
            folder or file of ours, a log of TOFU or open-unlearning, or a per-sample table.
        template: prompt template.
        batch_size: most sequences per forward pass.
        max_new_tokens: most tokens per generated answer.
        protocol: `all` rows; `official`: the first 300 of each set, and at most 200 tokens of prompt, padding and
            continuation together.
        compatibility: `open_unlearning` gives plain names to that framework's definitions.
        max_rows: evaluate only the first rows of each set (a quick look; not comparable with anything else).
        max_length: tokens per scored sequence.
        resume: see `TableEvaluator`.

    Raises:
        ValueError: for a reference that cannot be read.
    """

    benchmark = "tofu"

    def __init__(
        self,
        tofu: TofuData,
        reference: str | os.PathLike[str] | pd.DataFrame | None = None,
        template: str = "auto",
        batch_size: int = 32,
        max_new_tokens: int = 200,
        protocol: Protocol = "all",
        compatibility: Compatibility = None,
        max_rows: int | None = None,
        max_length: int = 512,
        resume: bool = False,
    ) -> None:
        generation = GenerationSettings(max_new_tokens, 200 if protocol == "official" else None)
        super().__init__(Engine(template, batch_size, max_length=max_length, generation=generation), resume)
        self.tofu = tofu
        self.protocol: Protocol = protocol
        self.compatibility: Compatibility = compatibility
        self.max_rows = max_rows
        self.reference = reference if isinstance(reference, pd.DataFrame) or reference is None else _read(reference)

    def requests(self) -> list[SplitRequest]:
        """All sets that the data have."""
        limits = [limit for limit in (self.max_rows, OFFICIAL_ROWS if self.protocol == "official" else None) if limit]
        return [
            SplitRequest(
                split,
                self.tofu[part].select(range(min([len(self.tofu[part]), *limits]))).to_list(),
                scored,
                details=split in ("forget", "holdout"),
                generated=split != "holdout",
            )
            for split, (part, scored) in _PARTS.items()
            if part in self.tofu
        ]

    def aggregate(self, samples: pd.DataFrame, settings: dict[str, Any]) -> Mapping[str, MetricValue]:
        """Every TOFU aggregate."""
        reference = self.reference
        if reference is not None and self.max_rows is not None:
            reference = reference[reference["index"] < self.max_rows]
        return aggregate_tofu(
            samples,
            reference,
            protocol=self.protocol,
            compatibility=self.compatibility,
            settings={**settings, "max_rows": self.max_rows},
            fingerprint=self.data_fingerprint(),
        )

    def record(self) -> dict[str, Any]:
        """Protocol and compatibility."""
        return {"protocol": self.protocol, "compatibility": self.compatibility}


def _read(reference: str | os.PathLike[str]) -> pd.DataFrame:
    return read_reference(Path(reference))
