"""MUSE as an entry of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from unlearn_hf.benchmarks.base import Benchmark, DataChoice

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from unlearn_hf.benchmarks.muse.data import Corpus
    from unlearn_hf.evaluation.metric_value import MetricValue
    from unlearn_hf.training.evaluators import Evaluator

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

    def load(self, choice: DataChoice) -> Mapping[str, Any]:
        """See `load_muse`; an unknown corpus is the fault of the option `split`."""
        from unlearn_hf.benchmarks.muse.data import load_muse

        split = choice.split or self.splits[0]
        if split not in self.splits:
            raise ValueError(f"split: {split!r} is no corpus of muse; choose one of {', '.join(self.splits)}.")
        return load_muse(cast("Corpus", split), choice.source, choice.revision)

    def training_parts(self, data: Mapping[str, Any], subset: str) -> list[str]:
        """What the official target and retrained models learnt."""
        names = ["train_retain1", "train_retain2", *(["train_forget"] if subset == "full" else [])]
        # The mini corpus comes with questions on its articles, because no model has learnt to answer before.
        return names + [f"{name}_qa" for name in ("train_retain", names[-1]) if f"{name}_qa" in data]

    def training_rows(self, data: Any, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
        """Texts in windows of `max_length` tokens, BOS among them; those of the mini corpus are short rows already."""
        from unlearn_hf.data.text_windows import text_windows

        return rows if data.source == "mini" else text_windows(rows["text"], tokenizer, max_length - 1)

    def evaluator(self, data: Any, **settings: Any) -> Evaluator:
        """See `MuseEvaluator`."""
        from unlearn_hf.benchmarks.muse.evaluator import MuseEvaluator

        return MuseEvaluator(data, **settings)

    def aggregate(
        self, samples: pd.DataFrame, retain_samples: pd.DataFrame | None, *, split: str | None = None, **options: Any
    ) -> dict[str, MetricValue]:
        """See `aggregate_muse`, which has no protocols."""
        from unlearn_hf.benchmarks.muse.metrics import aggregate_muse

        options.pop("protocol", None)
        corpus: Any = split or (options.get("settings") or {}).get("corpus")
        return aggregate_muse(samples, retain_samples, corpus, **options)

    def claims(self, splits: set[str], metrics: set[str], samples: pd.DataFrame | None) -> bool:
        """VerbMem and KnowMem are of MUSE alone."""
        return bool(splits & set(TEXT_SPLITS) or metrics & {*TEXT_SPLITS, *TEXT_SPLITS.values()})


MUSE = Muse()
