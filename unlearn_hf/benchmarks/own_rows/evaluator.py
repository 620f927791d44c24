"""Evaluation of one's own forget and retain rows, where no benchmark gives paraphrases and wrong answers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from unlearn_hf.benchmarks.base import OWN_ROWS
from unlearn_hf.benchmarks.benchmark_of_log import read_reference
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.data.columns import detect_columns
from unlearn_hf.evaluation.engine import Engine
from unlearn_hf.evaluation.evaluator import TableEvaluator
from unlearn_hf.evaluation.generation import GenerationSettings
from unlearn_hf.evaluation.metric_value import MetricValue
from unlearn_hf.evaluation.requests import SplitRequest


class PairsEvaluator(TableEvaluator):
    """Prob, ROUGE-L recall, extraction strength and exact memorisation on one's own rows.

    Args:
        pairs: `forget` and `retain` rows: `question`/`answer` or `prompt`/`completion`.
        template: prompt template.
        batch_size: most sequences per forward pass.
        max_new_tokens: most tokens per generated answer.
        max_rows: evaluate only the first rows of each set.
        max_length: tokens per scored sequence.
        resume: see `TableEvaluator`.
        retain_results: evaluation of the retain model on the same rows, kept as `reference`: the values that a model
            which never saw the forget rows has. No metric here is relative to them.
        fluency_model: classifier of the answers, for `forget_fluency`; see `FluencyClassifier`.
        fluency_label: its label of texts that are no gibberish.

    Raises:
        ValueError: for a reference that cannot be read or is over other rows, and
            for rows that are no pairs of a question and an answer (raw text, conversations).
    """

    benchmark = OWN_ROWS

    def __init__(
        self,
        pairs: Mapping[str, Iterable[Mapping[str, Any]]],
        template: str = "auto",
        batch_size: int = 32,
        max_new_tokens: int = 200,
        max_rows: int | None = None,
        max_length: int = 512,
        resume: bool = False,
        retain_results: str | os.PathLike[str] | pd.DataFrame | None = None,
        fluency_model: str | None = None,
        fluency_label: str = "clean",
    ) -> None:
        engine = Engine(template, batch_size, max_length=max_length, generation=GenerationSettings(max_new_tokens))
        super().__init__(engine, resume, max_rows, fluency_model=fluency_model, fluency_label=fluency_label)
        self.rows: dict[str, list[dict[str, Any]]] = {}
        for split in ("forget", "retain"):
            rows = [dict(row) for row in pairs[split]][:max_rows]
            if not rows:
                raise ValueError(f"{split}: the dataset is empty; nothing can be evaluated.")
            columns = detect_columns(list(rows[0]), split)
            if len(columns) != 2:
                raise ValueError(
                    f"{split}: rows with {columns[0]!r} have no single question and answer; evaluate rows with "
                    "question and answer, or prompt and completion."
                )
            self.rows[split] = [{"question": row[columns[0]], "answer": row[columns[1]]} for row in rows]
        self.reference = read_reference(retain_results, self.benchmark)
        if self.reference is not None:
            self.check_rows_of(self.reference, ("forget",))

    def requests(self) -> list[SplitRequest]:
        """Both sets; token-level statistics on the forget set."""
        return [SplitRequest(split, rows, details=split == "forget") for split, rows in self.rows.items()]

    def aggregate(
        self, samples: pd.DataFrame, settings: dict[str, Any], fingerprint: str
    ) -> Mapping[str, MetricValue]:
        """The TOFU aggregates that these columns suffice for."""
        return aggregate_tofu(samples, settings=settings, fingerprint=fingerprint)
