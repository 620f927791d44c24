"""LUME's evaluation of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from unlearn_hf.benchmarks.lume.benchmark import LUME, TABLE_SPLITS
from unlearn_hf.benchmarks.lume.data import LumeData
from unlearn_hf.benchmarks.lume.metrics import aggregate_lume, check_accuracy
from unlearn_hf.evaluation.engine import Engine
from unlearn_hf.evaluation.evaluator import TableEvaluator
from unlearn_hf.evaluation.generation import GenerationSettings
from unlearn_hf.evaluation.metric_value import MetricValue
from unlearn_hf.evaluation.metrics.exact_match import ExactMatch
from unlearn_hf.evaluation.requests import ContinuationRequest, Request, TextRequest


class LumeEvaluator(TableEvaluator):
    """Regurgitation, knowledge, membership and final score on LUME.

    Every input is continued greedily as it is. A text to complete is scored by ROUGE-L recall with a stemmer, a
    question by whether answer and reference are equal without outer spaces and case. Member documents are told from
    others by the mean NLL of all their tokens.

    Args:
        lume: the data; the membership attack is left out where its documents are absent.
        batch_size: most sequences per forward pass.
        max_new_tokens: most tokens per answer.
        mmlu_accuracy: accuracy on MMLU (`--lm_eval_tasks mmlu` measures it), for the final score.
        max_rows: evaluate only the first rows of each of the twelve sets (a quick look).
        max_length: unused; documents are scored whole.
        resume: see `TableEvaluator`.

    Raises:
        ValueError: for sizes that are not above zero, and an accuracy outside [0, 1].

    Source:
        Ramakrishna et al. 2025, arXiv 2502.15097, section 4.
    """

    benchmark = "lume"

    def __init__(
        self,
        lume: LumeData,
        batch_size: int = 16,
        max_new_tokens: int = LUME.defaults["max_new_tokens"],
        mmlu_accuracy: float | None = None,
        max_rows: int | None = None,
        max_length: int = 512,
        resume: bool = False,
    ) -> None:
        check_accuracy(mmlu_accuracy)
        engine = Engine("plain", batch_size, max_length=max_length, generation=GenerationSettings(max_new_tokens))
        super().__init__(engine, resume, max_rows)
        self.lume = lume
        self.mmlu_accuracy = mmlu_accuracy

    def requests(self) -> Sequence[Request]:
        """The twelve sets, and the documents of the membership attack."""
        sets: dict[str, list[dict[str, Any]]] = {split: [] for split in TABLE_SPLITS}
        for name in ("forget", "retain"):
            for row in self.lume[name]:
                found = sets[f"{name}_{row['task']}_{row['form']}"]
                found.append({"prompt": row["prompt"], "reference": row["completion"]})
        requests: list[Request] = [
            ContinuationRequest(split, rows[: self.max_rows], self.engine.generation, use_stemmer=True)
            for split, rows in sets.items()
            if rows
        ]
        return requests + [
            TextRequest(name, self.lume[name].to_list()[: self.max_rows])
            for name in ("member", "nonmember")
            if name in self.lume
        ]

    def settings(self) -> dict[str, Any]:
        """The given accuracy too, from which a log is recomputed."""
        return super().settings() | {"split": self.lume.split, "mmlu_accuracy": self.mmlu_accuracy}

    def extend(self, samples: pd.DataFrame, *_: Any) -> pd.DataFrame:
        """Whether an answer to a question is the reference."""
        asked = samples[samples["split"].str.endswith("_qa")]
        found = ExactMatch().per_sample(predictions=asked["generation"], references=asked["reference_text"])
        return samples.assign(exact_match=pd.Series(found, index=asked.index, dtype=float))

    def aggregate(
        self, samples: pd.DataFrame, settings: dict[str, Any], fingerprint: str
    ) -> Mapping[str, MetricValue]:
        """Every LUME score."""
        return aggregate_lume(samples, self.mmlu_accuracy, settings=settings, fingerprint=fingerprint)
