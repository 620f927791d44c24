"""Membership attacks and PrivLeak, from scores per sample.

The scores are those of `unlearn_hf.evaluation.attacks`, higher for texts that look less like members. The AUC is
P(holdout score > forget score): 1 means that the forget set is fully recognised, 0.5 that it is not told apart, below
0.5 that it looks stranger than unseen text. There is no best value but the AUC of a model that never saw the forget
set: holdout texts may be easier by nature (on TOFU retrained models have 0.35 to 0.39).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearn_hf.evaluation.attacks.base import ATTACKS
from unlearn_hf.evaluation.metrics.base import Kind, Metric
from unlearn_hf.evaluation.metrics.statistics import attack_auc, privleak_muse
from unlearn_hf.evaluation.sample_table import Missing, check_same_rows, column_values, split_rows

Array = NDArray[np.float64]


class TextAUC(Metric):
    """AUC of the mean NLL of texts: P(NLL of another text > NLL of a member)."""

    inputs: ClassVar[Mapping[str, Kind]] = {"predictions": "number", "references": "number"}
    definition = "nonmember_above_member"

    def of_sides(self, members: Array, others: Array) -> float:
        """The value from the scores of members and of others."""
        return attack_auc(members, others)

    def compute(  # type: ignore[override]
        self, *, predictions: Sequence[float], references: Sequence[float], **options: Any
    ) -> dict[str, Any]:
        """Scores of all texts, and for each 0 where it is a member (of the forget set) and 1 where not (holdout)."""
        scores, other = np.asarray(predictions, dtype=np.float64), np.asarray(references) == 1
        return {self.key: self.of_sides(scores[~other], scores[other], **options)}


class AttackAUC(TextAUC):
    """What the scores of an attack on members and others amount to: its AUC."""

    definition = "holdout_above_forget"

    def of_sides(self, members: Array, others: Array) -> float:
        """As the attack aggregates them."""
        return ATTACKS[self.key.removeprefix("mia_").removesuffix("_auc")].aggregate(members, others)


class DistanceToHalf(TextAUC):
    """1 - 2 |AUC - 0.5|: 1 where members cannot be told from others."""

    definition = "distance_to_half"

    def of_sides(self, members: Array, others: Array) -> float:
        """See the class."""
        return 1 - 2 * abs(attack_auc(members, others) - 0.5)


class PrivLeak(TextAUC):
    """100 (AUC - AUC_retrain) / AUC_retrain, where the AUC is P(score of holdout < score of forget)."""

    definition = "muse_reference_log"

    def of_sides(self, members: Array, others: Array, retrain_auc: float) -> float:  # type: ignore[override]
        """From Min-K scores; `retrain_auc` is the AUC of a retrained model."""
        return privleak_muse(1 - attack_auc(members, others), 1 - retrain_auc)


def attack_sides(table: pd.DataFrame, attack: str, missing: Missing = "error") -> tuple[Array, Array] | None:
    """Scores of an attack on forget and holdout rows, `None` where one of the two is absent."""
    forget = column_values(split_rows(table, "forget"), attack, missing)
    holdout = column_values(split_rows(table, "holdout"), attack, missing)
    return None if forget is None or holdout is None else (forget, holdout)


def table_auc(table: pd.DataFrame, attack: str, missing: Missing = "error") -> tuple[float, int] | None:
    """AUC of one attack and the number of texts it is over, `None` where forget or holdout scores are absent."""
    sides = attack_sides(table, attack, missing)
    return None if sides is None else (attack_auc(*sides), sides[0].size + sides[1].size)


def paired_auc(
    table: pd.DataFrame, reference: pd.DataFrame, attack: str, missing: Missing = "error"
) -> tuple[float, float] | None:
    """AUCs of one attack on a model and on its reference, `None` where a side lacks the scores.

    Raises:
        ValueError: if the two are not over the same forget and holdout rows, see `check_same_rows`.
    """
    mine, theirs = table_auc(table, attack, missing), table_auc(reference, attack, missing)
    if mine is None or theirs is None:
        return None
    for split in ("forget", "holdout"):
        check_same_rows(split_rows(table, split), split_rows(reference, split), f"the attack {attack}", split)
    return mine[0], theirs[0]
