"""LUME as an entry of the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unlearn_hf.benchmarks.base import Benchmark

if TYPE_CHECKING:
    import pandas as pd

    from unlearn_hf.evaluation.metric_value import MetricValue

TASKS = ("task1", "task2", "task3")
FORMS = ("sc", "qa")
TABLE_SPLITS = tuple(f"{name}_{task}_{form}" for name in ("forget", "retain") for task in TASKS for form in FORMS)
"""The twelve sets of rows in a per-sample table."""


class Lume(Benchmark):
    """Stories, invented people with private data, and real biographies, each to complete and to answer about."""

    summary = (
        "Invented stories, invented people's private data, real biographies (--split all, task1, task2, task3): text "
        "to complete and questions; SemEval-2025 task 4."
    )
    paper = "Ramakrishna et al., LUME, 2025, https://arxiv.org/abs/2502.15097"
    splits = ("all", *TASKS)
    bundled = "The same shape in small: invented stories and people, offline."
    hub_datasets = {"": "llmunlearningsemeval2025organization/semeval25-unlearning-dataset-public"}  # noqa: RUF012
    # Inputs are continued as they are, up to 256 tokens.
    defaults = {"template": "completion", "max_new_tokens": 256}  # noqa: RUF012
    options = ("max_new_tokens", "mmlu_accuracy")
    prompts = False
    audited = {  # noqa: RUF012
        name: tuple(split for split in TABLE_SPLITS if split.startswith(name) and split.endswith("qa"))
        for name in ("forget", "retain")
    }
    loader = "unlearn_hf.benchmarks.lume.data:load_lume"
    evaluated_by = "unlearn_hf.benchmarks.lume.evaluator:LumeEvaluator"

    def aggregate(
        self, samples: pd.DataFrame, retain_samples: pd.DataFrame | None, *, split: str | None = None, **options: Any
    ) -> dict[str, MetricValue]:
        """See `aggregate_lume`; nothing here is relative to a retain model, and there are no protocols."""
        from unlearn_hf.benchmarks.lume.metrics import aggregate_lume

        kept = {name: options[name] for name in ("missing", "settings", "fingerprint") if name in options}
        return aggregate_lume(samples, (kept.get("settings") or {}).get("mmlu_accuracy"), **kept)

    def claims(self, splits: set[str], metrics: set[str], samples: pd.DataFrame | None) -> bool:
        """Sets of rows, and metrics, that no other benchmark has."""
        return bool(splits & set(TABLE_SPLITS)) or any(name.startswith("lume_") for name in metrics)


LUME = Lume()
