"""What a reference, the retain model's evaluation, must have to be compared with."""

from __future__ import annotations

import pandas as pd

from unlearn_hf.evaluation.metrics.privacy import table_auc
from unlearn_hf.evaluation.metrics.truth_ratio import available_definitions
from unlearn_hf.evaluation.sample_table import Missing, split_rows


def has_truth_ratios(table: pd.DataFrame) -> bool:
    """Whether forget quality can be computed from the forget rows."""
    return bool(available_definitions(split_rows(table, "forget")))


def has_min_k(table: pd.DataFrame, missing: Missing = "error") -> bool:
    """Whether PrivLeak can be computed from the forget and holdout rows."""
    return table_auc(table, "min_k", missing) is not None


def check_contribution(
    reference: pd.DataFrame,
    *,
    truth_ratios: bool,
    min_k: bool,
    compatibility: str | None = None,
    missing: Missing = "error",
) -> None:
    """Raise unless a reference gives forget quality or PrivLeak (privacy needs what PrivLeak needs).

    Args:
        reference: the retain model's per-sample table.
        truth_ratios: whether the evaluation itself has truth ratios of forget rows.
        min_k: whether it has Min-K scores of forget and holdout rows.
        compatibility: with `"open_unlearning"`, PrivLeak is defined for every AUC of the reference.
        missing: see `prepare_table`.

    Raises:
        ValueError: if nothing can be compared; it names what each side has.
    """
    theirs_ratios, theirs_area = has_truth_ratios(reference), table_auc(reference, "min_k", missing)
    if (truth_ratios and theirs_ratios) or (
        min_k and theirs_area is not None and (compatibility or theirs_area[0] < 1)
    ):
        return
    if min_k and theirs_area is not None:
        raise ValueError(
            "retain_results: it recognises every forget text (its AUC is 1), so that PrivLeak, which divides by one "
            "minus that, is not defined. Take a model that never saw the forget set."
        )
    sides = (("the evaluation", truth_ratios, min_k), ("the reference", theirs_ratios, theirs_area is not None))
    found = " and ".join(f"{side} has {_found(ratios, scores)}" for side, ratios, scores in sides)
    raise ValueError(
        f"retain_results: there is nothing to compare, because {found}. Leave the reference away, or take one with "
        "paraphrase and perturbed losses on forget (for forget quality) or Min-K scores (for PrivLeak)."
    )


def _found(ratios: bool, scores: bool) -> str:
    if ratios or scores:
        return "truth ratios of forget rows alone" if ratios else "Min-K scores of forget and holdout rows alone"
    return "neither truth ratios of forget rows nor Min-K scores of forget and holdout rows"
