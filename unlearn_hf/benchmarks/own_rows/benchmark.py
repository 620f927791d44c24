"""Rows of one's own as an entry of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unlearn_hf.benchmarks.base import BENCHMARKS, OWN_ROWS, Benchmark, DataChoice

if TYPE_CHECKING:
    from unlearn_hf.training.evaluators import Evaluator


class OwnRows(Benchmark):
    """A file to forget and a file to keep, or one file to learn."""

    summary = "Files of your own (--forget_file, --retain_file): probability, ROUGE and memorisation of the answers."
    paper = "this project"
    options = ("retain_results", "max_new_tokens", "fluency_model", "fluency_label")
    as_trained = True
    evaluated_by = "unlearn_hf.benchmarks.own_rows.evaluator:PairsEvaluator"
    aggregated_by = "unlearn_hf.benchmarks.tofu.metrics:aggregate_tofu"

    def load(self, choice: DataChoice) -> Mapping[str, Any]:
        """The rows of the files: `train`, or `forget` and `retain`, and `holdout` where there is one."""
        from unlearn_hf.data.own_files import load_pairs, load_rows
        from unlearn_hf.data.row_checks import check_holdout

        files = choice.files
        if choice.split is not None:
            raise ValueError(f"split: {choice.split!r} belongs to a benchmark; add --benchmark {_others()}.")
        if "train_file" in files:
            return {"train": load_rows(files["train_file"], "train_file")}
        if not files:
            raise ValueError(
                f"benchmark: no data are given; use --benchmark {_others()}, or --forget_file and --retain_file."
            )
        needed = ("forget_file", "retain_file") if choice.needs_retain else ("forget_file",)
        if missing := [name for name in needed if name not in files]:
            raise ValueError(f"{missing[0]}: missing; unlearning needs rows to forget and rows to keep.")
        if "retain_file" in files:
            pairs = load_pairs(files["forget_file"], files["retain_file"])
        else:
            pairs = {"forget": load_rows(files["forget_file"], "forget_file")}
        if "holdout_file" in files:
            pairs["holdout"] = load_rows(files["holdout_file"], "holdout_file")
            check_holdout(pairs["holdout"], pairs["forget"], f"holdout_file: {files['holdout_file']}")
        return pairs

    def training_parts(self, data: Mapping[str, Any], subset: str) -> list[str]:
        """The training file, or the sets."""
        return ["train"] if "train" in data else super().training_parts(data, subset)

    def evaluator(self, data: Mapping[str, Any], **settings: Any) -> Evaluator | None:
        """See `PairsEvaluator`; none for raw text, conversations, or a training file."""
        from unlearn_hf.data.columns import detect_columns

        pairs = {name: data[name] for name in ("forget", "retain") if name in data}
        if len(pairs) < 2 or any(len(detect_columns(rows.column_names)) != 2 for rows in pairs.values()):
            return None
        return super().evaluator(pairs, **settings)


def _others() -> str:
    return " or ".join(name for name in BENCHMARKS if name != OWN_ROWS)


OWN = OwnRows()
