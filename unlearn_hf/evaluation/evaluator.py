"""What evaluators of question-answer rows share: passes, results, files, resumption."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from unlearn_hf.common.checks import check_count
from unlearn_hf.evaluation.attacks.base import ATTACKS
from unlearn_hf.evaluation.engine import Engine, settings_fingerprint
from unlearn_hf.evaluation.fluency import FluencyClassifier
from unlearn_hf.evaluation.metric_value import MetricValue, flatten
from unlearn_hf.evaluation.metrics.base import added_metrics
from unlearn_hf.evaluation.requests import Request
from unlearn_hf.evaluation.results import write_results
from unlearn_hf.evaluation.retain_results import check_contribution, has_min_k
from unlearn_hf.evaluation.sample_table import (
    Compatibility,
    Protocol,
    check_choices,
    check_same_rows,
    extraction_of,
    prepare_table,
    row_fingerprint,
    split_rows,
)
from unlearn_hf.likelihood.one_pass import PartialResults


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        values: aggregates by name.
        samples: values per sample, one row per (split, index).
        seconds: of each pass.
    """

    values: Mapping[str, MetricValue]
    samples: pd.DataFrame
    seconds: Mapping[str, float] = field(default_factory=dict)


class TableEvaluator:
    """Runs an `Engine` over split requests and aggregates the table; a subclass says over what, and how.

    Args:
        engine: how the model is run.
        resume: keep results of each batch in the output folder until the evaluation is complete, so that an
            interrupted one continues; costs one hash of the model. For evaluation in the training loop leave it off.
        max_rows: most rows of each set.
        protocol: see `prepare_table`.
        compatibility: whose definitions get the plain names.
        fluency_model: classifier of answers on the forget rows, for `forget_fluency`; see `FluencyClassifier`.
        fluency_label: its label of texts that are no gibberish.

    Attributes:
        last_result: the full result of the last call.
        memory: what attacks keep from one call to the next, with name and fingerprint of the model that they compare
            with as `attack_model`.

    Raises:
        ValueError: for unknown choices and sizes that are not above zero.
    """

    benchmark: str

    def __init__(
        self,
        engine: Engine,
        resume: bool = False,
        max_rows: int | None = None,
        protocol: Protocol = "all",
        compatibility: Compatibility = None,
        fluency_model: str | None = None,
        fluency_label: str = "clean",
    ) -> None:
        check_count("max_rows", max_rows)
        check_choices(protocol, compatibility)
        self.engine = engine
        self.resume = resume
        self.max_rows = max_rows
        self.protocol: Protocol = protocol
        self.compatibility: Compatibility = compatibility
        self.fluency = None if fluency_model is None else FluencyClassifier(fluency_model, fluency_label)
        self.last_result: EvaluationResult | None = None
        self.memory: dict[str, Any] = {}

    def requests(self) -> Sequence[Request]:
        """What is needed of the model."""
        raise NotImplementedError

    def fitting_reference(self, reference: pd.DataFrame | None, truth_ratios: bool) -> pd.DataFrame | None:
        """A reference's table, cut to the rows that are evaluated, once it is known to fit them.

        Args:
            reference: the table.
            truth_ratios: whether this evaluation has truth ratios of forget rows.

        Raises:
            ValueError: if it is over other rows or texts, or has nothing to compare.
        """
        if reference is None:
            return None
        attacked = {"forget", "holdout"} <= {request.split for request in self.requests()}
        try:
            table = prepare_table(reference, self.protocol)
            if self.max_rows is not None:
                table = table[table["index"] < self.max_rows].reset_index(drop=True)
            check_contribution(table, truth_ratios=truth_ratios, min_k=attacked, compatibility=self.compatibility)
            self.check_rows_of(table, ("forget", "holdout") if attacked and has_min_k(table) else ("forget",))
        except ValueError as error:
            raise ValueError(f"retain_results: {str(error).removeprefix('retain_results: ')}") from error
        return table

    def check_rows_of(self, table: pd.DataFrame, splits: Sequence[str]) -> None:
        """Raise a `ValueError` unless a reference's table has the rows of these splits that are evaluated here."""
        requested = {request.split: request.rows for request in self.requests()}
        for split in splits:
            rows = [
                {"index": index, "row": row_fingerprint(row), "reference_text": row.get("answer")}
                for index, row in enumerate(requested[split])
            ]
            check_same_rows(pd.DataFrame(rows), split_rows(table, split), "retain_results: a reference", split)

    def aggregate(
        self, samples: pd.DataFrame, settings: dict[str, Any], fingerprint: str
    ) -> Mapping[str, MetricValue]:
        """Metrics from the per-sample table; settings and fingerprint of the data are recorded with each."""
        raise NotImplementedError

    def data_fingerprint(self) -> str:
        """Hash of the rows that are evaluated."""
        return settings_fingerprint([[request.split, list(map(dict, request.rows))] for request in self.requests()])

    def settings(self) -> dict[str, Any]:
        """What results depend on beyond model and rows."""
        own = {request.split: dict(request.settings()) for request in self.requests() if request.settings()}
        found = self.engine.settings() | ({"requests": own} if own else {})
        if self.fluency is not None:
            found["fluency"] = {"model": self.fluency.name, "label": self.fluency.label}
        return found

    def extend(
        self,
        samples: pd.DataFrame,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator | None,
        partial: PartialResults | None,
    ) -> pd.DataFrame:
        """Add columns that need passes of their own, and give others the definition that a compatibility asks for."""
        return extraction_of(samples, self.compatibility)

    def __call__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        accelerator: Accelerator | None = None,
        output_dir: Path | None = None,
    ) -> dict[str, float]:
        """Evaluate `model`.

        Args:
            model: a causal language model, wrapped or not; left as it was.
            tokenizer: its tokenizer; left as it was.
            accelerator: shares the work out over its processes.
            output_dir: where `evaluation.json` and `samples.parquet` go.

        Returns:
            Numbers by flat metric name.
        """
        settings = self.settings()
        fingerprint = self.data_fingerprint()
        partial = None
        if self.resume and output_dir is not None:
            attacks = {name: attack.version for name, attack in ATTACKS.items()}
            key = settings_fingerprint(
                self.engine.fingerprint(model, tokenizer, accelerator), fingerprint, settings, attacks
            )
            partial = PartialResults(Path(output_dir), key)
        samples = self.engine.run(model, tokenizer, self.requests(), accelerator=accelerator, partial=partial)
        if self.fluency is not None:
            start = time.perf_counter()
            forget = split_rows(samples, "forget")
            keys = [f"forget/{index}/fluency" for index in forget["index"]]
            found = self.fluency.scores(
                dict(zip(keys, forget["generation"], strict=True)),
                next(model.parameters()).device if accelerator is None else accelerator.device,
                batch_size=self.engine.batch_size,
                accelerator=accelerator,
                partial=partial,
            )
            samples.loc[forget.index, "fluency"] = [found[key] for key in keys]
            self.engine.seconds["fluency"] = time.perf_counter() - start
        samples = self.extend(samples, model, tokenizer, accelerator, partial)
        recorded = {**settings, "max_rows": self.max_rows}
        added = added_metrics(
            prepare_table(samples, self.protocol), protocol=self.protocol, settings=recorded, fingerprint=fingerprint
        )
        values = {**self.aggregate(samples, recorded, fingerprint), **added}
        self.last_result = EvaluationResult(values, samples, dict(self.engine.seconds))
        if output_dir is not None and (accelerator is None or accelerator.is_main_process):
            write_results(
                output_dir,
                values,
                samples,
                benchmark=self.benchmark,
                protocol=self.protocol,
                compatibility=self.compatibility,
                settings=settings,
                fingerprint=fingerprint,
                seconds=self.engine.seconds,
                attack_model=self.memory.get("attack_model"),
            )
            if partial is not None:
                partial.remove()
        return flatten(values)
