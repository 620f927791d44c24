"""MUSE as an entry of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unlearn_hf.benchmarks.base import Benchmark

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from unlearn_hf.evaluation.metric_value import MetricValue

TEXT_SPLITS: dict[str, str] = {
    "verbmem_forget": "forget_verbmem_rouge",
    "knowmem_forget": "forget_knowmem_rouge",
    "knowmem_retain": "retain_knowmem_rouge",
}
"""Split (also the name of its metric x 100) -> name of the same value as a fraction."""


class Muse(Benchmark):
    """News articles or books; the split is the corpus."""

    summary = (
        "News articles or books (--split news, books): continuation, questions, membership, utility, growing and "
        "repeated requests (--forget_part scal_forget_1..4, sust_forget_1..4)."
    )
    paper = "Shi et al., MUSE, 2024, https://arxiv.org/abs/2407.06460"
    splits = ("news", "books")
    bundled = "The same shape in small: local news from towns that do not exist, offline."
    hub_datasets = {"news": "muse-bench/MUSE-News", "books": "muse-bench/MUSE-Books"}  # noqa: RUF012
    defaults = {"max_length": 2048}  # noqa: RUF012 - of training windows
    options = ("retain_results", "compatibility", "max_text_tokens")
    prompts = False
    audited = {"forget": ("knowmem_forget",), "retain": ("knowmem_retain",)}  # noqa: RUF012
    loader = "unlearn_hf.benchmarks.muse.data:load_muse"
    evaluated_by = "unlearn_hf.benchmarks.muse.evaluator:MuseEvaluator"
    aggregated_by = "unlearn_hf.benchmarks.muse.metrics:aggregate_muse"

    def training_parts(self, data: Mapping[str, Any], subset: str) -> list[str]:
        """What the official target and retrained models learnt."""
        names = ["train_retain1", "train_retain2", *(["train_forget"] if subset == "full" else [])]
        # The mini corpus comes with questions on its articles, because no model has learnt to answer before.
        return names + [f"{name}_qa" for name in ("train_retain", names[-1]) if f"{name}_qa" in data]

    def training_rows(self, data: Any, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
        """Texts in windows of `max_length` tokens, BOS among them; those of the mini corpus are short rows already."""
        from unlearn_hf.data.text_windows import text_windows

        return rows if data.source == "mini" else text_windows(rows["text"], tokenizer, max_length - 1)

    def aggregate(
        self, samples: pd.DataFrame, retain_samples: pd.DataFrame | None, *, split: str | None = None, **options: Any
    ) -> dict[str, MetricValue]:
        """See `aggregate_muse`, which has no protocols."""
        options.pop("protocol", None)
        corpus = split or (options.get("settings") or {}).get("corpus")
        return super().aggregate(samples, retain_samples, corpus=corpus, **options)

    def claims(self, splits: set[str], metrics: set[str], samples: pd.DataFrame | None) -> bool:
        """VerbMem and KnowMem are of MUSE alone."""
        return bool(splits & set(TEXT_SPLITS) or metrics & {*TEXT_SPLITS, *TEXT_SPLITS.values()})


MUSE = Muse()
