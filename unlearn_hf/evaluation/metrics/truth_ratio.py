"""The truth ratio, in each of the definitions that are in use under that name.

With a(y) the mean token NLL of an answer, P(y) = exp(-a(y)), r the paraphrased right answer (the answer itself for
real authors and world facts) and w_1 .. w_k the wrong ones, every row has a ratio R (wrong over right):

| definition | R | score on forget | score elsewhere | who |
| --- | --- | --- | --- | --- |
| geometric | exp(a(r) - mean_j a(w_j)) | min(R, 1/R) | max(0, 1 - R) | TOFU's leaderboard, NPO, SimNPO, most papers |
| arithmetic | mean_j P(w_j) / P(r) | min(R, 1/R) | max(0, 1 - R) | TOFU's paper, its in-training callback |
| open_unlearning | W / (P(r) + 1e-10) | min(R, 1/(R + 1e-10)) | max(0, 1 - R) | open-unlearning |
| prob_mean | P(r) / (P(r) + W + 1e-10) | itself | itself | open-unlearning since December 2025, selectable |

Here W = exp(-mean_j a(w_j)) is the geometric mean of the wrong answers' likelihoods.

Scores of different definitions are different statistics; so are forget qualities computed from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearn_hf.common.checks import check_choice
from unlearn_hf.evaluation.metrics.base import Kind, Metric

Definition = Literal["geometric", "arithmetic", "open_unlearning", "prob_mean"]
DEFINITIONS: tuple[str, ...] = get_args(Definition)
_TINY = 1e-10  # open-unlearning's guard against division by zero

Array = NDArray[np.float64]


def truth_ratio(right_mean_nll: Array, wrong_mean_nll: list[Array], definition: str = "geometric") -> Array:
    """Truth ratio of each row (for `prob_mean` the share of the right answer), shape `[n]`.

    Args:
        right_mean_nll: mean token NLL of the right answer, shape `[n]`, in nats.
        wrong_mean_nll: mean token NLL of the wrong answers of each row, `n` arrays.
        definition: see the table of this module.

    Raises:
        ValueError: if a row has no wrong answer, or its ratio is not defined (all likelihoods infinitely small).
    """
    check_choice("definition", definition, DEFINITIONS)
    right = np.asarray(right_mean_nll, dtype=np.float64)
    if empty := [row for row, losses in enumerate(wrong_mean_nll) if len(losses) == 0]:
        raise ValueError(f"perturbed_mean_nll has no wrong answer in rows {empty[:5]}; the truth ratio needs one.")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if definition == "arithmetic":
            # In logarithms, so that answers of a collapsed model do not become 0 / 0.
            log_wrong = np.array([np.logaddexp.reduce(-losses) - np.log(len(losses)) for losses in wrong_mean_nll])
            ratio = np.exp(log_wrong + right)
        else:
            wrong = np.array([losses.mean() for losses in wrong_mean_nll])
            if definition == "geometric":
                ratio = np.exp(right - wrong)
            elif definition == "open_unlearning":
                ratio = np.exp(-wrong) / (np.exp(-right) + _TINY)
            else:
                ratio = np.exp(-right) / (np.exp(-right) + np.exp(-wrong) + _TINY)
    if np.isnan(ratio).any():
        rows = np.flatnonzero(np.isnan(ratio))[:5].tolist()
        raise ValueError(f"the {definition} truth ratio is not defined in rows {rows}: all likelihoods are zero.")
    return np.asarray(ratio, dtype=np.float64)


def truth_ratio_scores(ratio: Array, definition: str, forget: bool) -> Array:
    """Score of each row, shape `[n]`, whose mean is the metric; higher is better except for `prob_mean` on forget.

    Args:
        ratio: result of `truth_ratio`.
        definition: the one it was computed by.
        forget: whether these are forget rows (both answers equally likely is best) or rows to be kept.
    """
    if definition == "prob_mean":
        return ratio
    if not forget:
        return np.maximum(0.0, 1 - ratio)
    with np.errstate(divide="ignore"):
        inverse = 1 / (ratio + _TINY) if definition == "open_unlearning" else 1 / ratio
    return np.minimum(ratio, inverse)


def rows_truth_ratio(rows: pd.DataFrame, definition: str) -> Array | None:
    """Truth ratio of the rows of a per-sample table, or `None` where they do not carry what it needs.

    It is computed from `paraphrase_mean_nll` (without it, `answer_mean_nll`: real authors and world facts have no
    paraphrase) and `perturbed_mean_nll`. Rows of a log that holds only the ratio itself have `truth_ratio` and
    `truth_ratio_definition`; these serve only the definition that they were computed by.
    """
    losses = truth_ratio_losses(rows)
    if losses is not None:
        return truth_ratio(*losses, definition)
    if logged_definition(rows) == definition:
        return rows["truth_ratio"].dropna().to_numpy(np.float64)
    return None


def truth_ratio_losses(rows: pd.DataFrame) -> tuple[Array, list[Array]] | None:
    """Mean NLL of right and wrong answers of the rows that have both, which every definition is computed from."""
    options = bool(len(rows)) and bool(rows["split"].isin(["real_authors", "world_facts"]).all())
    names = ["paraphrase_mean_nll", *(["answer_mean_nll"] if options else [])]
    right = next((name for name in names if name in rows and rows[name].notna().any()), None)
    if right is None or "perturbed_mean_nll" not in rows:
        return None
    complete = rows[rows[[right, "perturbed_mean_nll"]].notna().all(axis=1)]
    wrong = [np.asarray(losses, dtype=np.float64) for losses in complete["perturbed_mean_nll"]]
    return None if complete.empty else (complete[right].to_numpy(np.float64), wrong)


def available_definitions(rows: pd.DataFrame) -> tuple[str, ...]:
    """Definitions that `rows_truth_ratio` can serve for these rows, or the one that they were logged with."""
    if truth_ratio_losses(rows) is not None:
        return DEFINITIONS
    logged = logged_definition(rows)
    return () if logged is None else (logged,)


def logged_definition(rows: pd.DataFrame) -> str | None:
    """Definition of the logged `truth_ratio` column, `None` without one.

    Raises:
        ValueError: if rows of one set are of different definitions.
    """
    if "truth_ratio" not in rows or "truth_ratio_definition" not in rows:
        return None
    definitions = sorted(rows.loc[rows["truth_ratio"].notna(), "truth_ratio_definition"].dropna().unique())
    if len(definitions) > 1:
        raise ValueError(f"truth_ratio mixes the definitions {definitions}; keep the rows of one.")
    return str(definitions[0]) if definitions else None


class TruthRatio(Metric):
    """Mean score of the truth ratio R: min(R, 1/R) on forget, max(0, 1 - R) elsewhere."""

    inputs: ClassVar[Mapping[str, Kind]] = {"predictions": "number", "references": "numbers"}
    definition = "geometric"

    def per_sample(  # type: ignore[override]
        self, *, predictions: Sequence[float], references: Sequence[Any], definition: str = "geometric"
    ) -> Array:
        """Score of each row, shape `[n]`.

        Args:
            predictions: mean token NLL of the right answer of each row, nats.
            references: those of its wrong answers.
            definition: see the table of this module.
        """
        wrong = [np.asarray(losses, dtype=np.float64) for losses in references]
        ratio = truth_ratio(np.asarray(predictions, dtype=np.float64), wrong, definition)
        return truth_ratio_scores(ratio, definition, forget=self.key.startswith("forget"))
