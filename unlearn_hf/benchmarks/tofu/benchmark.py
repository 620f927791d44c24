"""TOFU as an entry of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unlearn_hf.benchmarks.base import Benchmark

if TYPE_CHECKING:
    import pandas as pd

    from unlearn_hf.evaluation.logs.reading import EvaluationLog

_OWN_SPLITS = ("retain", "real_authors", "world_facts")
_WHAT = ("prob", "rouge", "truth_ratio", "paraphrase")
_OWN_METRICS = (
    *("forget_quality", "forget_fluency", "model_utility"),
    *(f"{split}_{what}" for split in ("forget", *_OWN_SPLITS) for what in _WHAT),
)


class Tofu(Benchmark):
    """Questions on invented authors."""

    summary = "Questions on 200 invented authors; forget 1, 5 or 10 % of them (--split forget01, forget05, forget10)."
    paper = "Maini et al., TOFU, COLM 2024, https://arxiv.org/abs/2401.06121"
    splits = ("forget10", "forget01", "forget05", "forget20", "forget30", "forget50", "forget90")
    bundled = "The same shape in small: 40 authors invented by this project, offline."
    hub_datasets = {"": "locuslab/TOFU"}  # noqa: RUF012
    options = (
        "retain_results",
        "max_new_tokens",
        "protocol",
        "compatibility",
        "attacks",
        "attack_model",
        "fluency_model",
        "fluency_label",
    )
    one_target = True
    loader = "unlearn_hf.benchmarks.tofu.data:load_tofu"
    evaluated_by = "unlearn_hf.benchmarks.tofu.evaluator:TofuEvaluator"
    aggregated_by = "unlearn_hf.benchmarks.tofu.metrics:aggregate_tofu"

    def training_parts(self, data: Mapping[str, Any], subset: str) -> list[str]:
        """The mini data come with the facts that their other sets ask for, because no model has learnt them before.

        Each comes three times: they stand for what a pretrained model knows well.
        """
        facts = [name for name in ("real_authors_facts", "world_facts_facts") if name in data]
        return super().training_parts(data, subset) + 3 * facts

    def claims(self, splits: set[str], metrics: set[str], samples: pd.DataFrame | None) -> bool:
        """Sets and metrics that no other benchmark has, or truth ratios."""
        from unlearn_hf.evaluation.retain_results import has_truth_ratios

        return (
            bool(splits & set(_OWN_SPLITS))
            or any(name.startswith(_OWN_METRICS) for name in metrics)
            or (samples is not None and has_truth_ratios(samples))
        )

    def check_logs(self, log: EvaluationLog, retain_log: EvaluationLog) -> None:
        """Forget quality needs the same rows on both sides, each as its own protocol has them."""
        from unlearn_hf.evaluation.metrics.truth_ratio import available_definitions
        from unlearn_hf.evaluation.sample_table import OFFICIAL_ROWS, check_same_rows, split_rows

        tables = []
        for each in (log, retain_log):
            rows = split_rows(each.table("a reference"), "forget")
            tables.append(rows[rows["index"] < OFFICIAL_ROWS] if each.protocol == "official" else rows)
        if all(available_definitions(rows) for rows in tables):
            check_same_rows(tables[0], tables[1], "forget quality")


TOFU = Tofu()
