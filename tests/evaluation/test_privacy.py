from __future__ import annotations

import pandas as pd
import pytest

from tests.evaluation.tables import attack_scores, tofu_table
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.evaluation.attacks.base import ATTACKS
from unlearn_hf.evaluation.metric_value import MetricValue
from unlearn_hf.evaluation.metrics.aggregates import Aggregates
from unlearn_hf.evaluation.metrics.composite import privacy_score
from unlearn_hf.evaluation.sample_table import Compatibility


def test_every_attack_has_an_auc_with_an_interval() -> None:
    found = Aggregates(attack_scores([1, 2, 4], [2, 3, 3]))
    found.add_attacks()
    values = found.values
    assert set(values) == {f"mia_{attack}_auc" for attack in ATTACKS}
    for value in values.values():
        assert value.value == pytest.approx(5.5 / 9)
        assert value.interval is not None
        assert 0 <= value.interval[0] <= value.value <= value.interval[1] <= 1
        assert value.higher_is_better is None


def privleak(
    table: pd.DataFrame, reference: pd.DataFrame | None, compatibility: Compatibility = None
) -> dict[str, MetricValue]:
    found = Aggregates(table, compatibility=compatibility)
    found.reference = reference
    found.add_privleak()
    return found.values


def test_privleak_by_hand() -> None:
    memorised, retrained = attack_scores([1, 2], [3, 4]), attack_scores([1, 4], [2, 3])
    assert set(privleak(memorised, None)) == {"privleak_versus_half"}
    values = privleak(memorised, retrained)
    assert values["privleak"].value == -100  # MUSE's AUCs are 0 and 0.5
    assert values["privleak"].definition == "muse_reference_log"
    logged = privleak(memorised, retrained, "open_unlearning")["privleak"]
    assert logged.value == pytest.approx(-100, abs=1e-6)
    assert logged.definition == "open_unlearning_reference_log"
    assert privleak(attack_scores([3, 4], [1, 2]), retrained)["privleak"].value == 100
    with pytest.warns(UserWarning, match="its AUC is 1"):
        assert set(privleak(retrained, memorised)) == {"privleak_versus_half"}
    assert privleak(tofu_table().drop(columns="min_k"), retrained) == {}


def test_privacy_score() -> None:
    assert privacy_score(0.4, 0.4) == 1
    assert privacy_score(1.0, 0.4) == 0  # as far from 0.4 as an AUC can be
    assert privacy_score(0.7, 0.4) == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"auc is 1\.5"):
        privacy_score(1.5, 0.5)


def test_privacy_composite_needs_a_reference_and_all_four_attacks() -> None:
    table, reference = attack_scores([1, 2], [2, 3]), attack_scores([1, 4], [2, 3])  # AUCs 0.875 and 0.5
    values = aggregate_tofu(table, reference)
    assert values["privacy"].value == pytest.approx(0.25)
    assert "privacy" not in aggregate_tofu(table)
    assert "privacy" not in aggregate_tofu(table.drop(columns="zlib"), reference)


def test_utility_composite_with_and_without_fluency() -> None:
    table = tofu_table()
    alone = aggregate_tofu(table)
    assert alone["utility"].value == pytest.approx(alone["model_utility"].value)
    table.loc[table["split"] == "forget", "fluency"] = [0.2, 0.4, 0.6]
    both = aggregate_tofu(table)
    utility = both["model_utility"].value
    assert both["forget_fluency"].value == pytest.approx(0.4)
    assert both["utility"].value == pytest.approx(2 / (1 / utility + 1 / 0.4))
    with pytest.raises(ValueError, match="definition is"):
        both["utility"].check_comparable(alone["utility"])
