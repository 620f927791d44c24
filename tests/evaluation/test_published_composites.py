"""Composite scores as published with the Unlearning Depth Score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.tables import attack_scores, tofu_table
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.evaluation.metrics.composite import published_composites, published_privacy_score

NAMES = ("mem", "privacy_mia", "privacy", "utility", "utility_rel", "overall")
# Two checkpoints of method_results.json of the repository of arXiv 2605.24614 (Apache-2.0): Llama-3.2-1B-Instruct on
# TOFU's forget10.
FULL_UTILITY = 0.7117632523209635
ALTPO: dict[str, Any] = {
    "model": "altpo_lr5e5_b01_a2_ep10",
    "mem": 0.6035879288628643,
    "privacy": 0.8476983968377115,
    "privacy_mia": 0.8641564397350118,
    "utility": 0.6800024448393712,
    "utility_rel": 0.9553772867888586,
    "overall": 0.7725724041875857,
    "uds": 0.8318555315930689,
    "s_loss": 0.8099024952391852,
    "s_zlib": 0.9449807642985381,
    "s_mink": 0.8263721519616367,
    "s_minkpp": 0.8883015459809807,
    "one_minus_es": 0.9484674401521015,
    "one_minus_em": 0.4050975303351879,
    "one_minus_paraprob": 0.9540669141616672,
    "one_minus_truth": 0.48637671810525096,
    "model_utility": 0.5649707338672758,
    "fluency": 0.8538523238524794,
}
FULL: dict[str, Any] = {
    "model": "full",
    "mem": 0.10326957371765141,
    "privacy": 1.3333333333333334e-12,
    "privacy_mia": 1e-12,
    "utility": 0.7117632523209635,
    "utility_rel": 0.9999999999985951,
    "overall": 6.999999999825504e-12,
    "uds": 0.0,
    "s_loss": 0.0,
    "s_zlib": 0.0,
    "s_mink": 0.0,
    "s_minkpp": 0.0,
    "one_minus_es": 0.3207916755605088,
    "one_minus_em": 0.03189577773213381,
    "one_minus_paraprob": 0.8951966056297533,
    "one_minus_truth": 0.3177524389214216,
    "model_utility": 0.6008834008121887,
    "fluency": 0.872823725938797,
}


def largest_difference(row: dict[str, Any], full_utility: float) -> float:
    """Between a published row and what follows from its parts alone."""
    parts = {name: value for name, value in row.items() if name not in NAMES}
    found = published_composites(parts, full_utility=full_utility)
    assert set(found) == set(NAMES)
    return max(abs(found[name] - row[name]) for name in NAMES)


@pytest.mark.parametrize("row", [ALTPO, FULL], ids=lambda row: row["model"])
def test_published_rows(row: dict[str, Any]) -> None:
    assert largest_difference(row, FULL_UTILITY) < 1e-11


def test_all_published_rows_at_hand(data_root: Path) -> None:
    file = data_root / "composites" / "expected.json"
    if not file.is_file():
        pytest.skip("UNLEARN_HF_DATA has no composites/expected.json: published rows NOT tested but for two")
    content = json.loads(file.read_text())
    assert len(content["models"]) == 22
    for row in content["models"]:
        assert largest_difference(row, content["full_utility"][row["epoch"]]) < 1e-9, row["model"]


def test_a_composite_without_its_parts_is_left_out() -> None:
    assert set(published_composites({"model_utility": 0.5, "fluency": 0.5})) == {"utility"}
    assert "utility_rel" not in published_composites(ALTPO)
    assert published_composites(dict.fromkeys(("s_loss", "s_zlib", "s_mink", "s_minkpp"), 0.5), uds=0.5)[
        "privacy"
    ] == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"fluency is 1\.5, and must lie in \[0, 1\]"):
        published_composites({"model_utility": 0.5, "fluency": 1.5})
    with pytest.raises(ValueError, match="uds is nan"):
        published_composites({}, uds=float("nan"))
    with pytest.raises(ValueError, match="full_utility is 0"):
        published_composites({}, full_utility=0.0)


def test_distances_are_relative_to_the_reference() -> None:
    assert published_privacy_score(0.4, 0.4) == 1
    assert published_privacy_score(0.5, 0.4) == pytest.approx(0.75)
    assert published_privacy_score(1.0, 0.4) == 0  # clipped
    assert published_privacy_score(0.1, 0.0) == 0
    assert published_privacy_score(0.0, 0.0) == 1
    with pytest.raises(ValueError, match=r"auc is 1\.5"):
        published_privacy_score(1.5, 0.5)


def test_an_evaluation_has_both_under_their_names() -> None:
    table = tofu_table()
    table.loc[table["split"] == "forget", "fluency"] = [0.2, 0.4, 0.6]
    values = aggregate_tofu(table)
    assert values["uds_mem"].value == pytest.approx(values["memorization"].value, abs=1e-11)
    assert values["uds_utility"].value == pytest.approx(values["utility"].value, abs=1e-11)
    assert "uds_utility" not in aggregate_tofu(table.drop(columns="fluency"))
    table, reference = attack_scores([1, 2], [2, 3]), attack_scores([1, 4], [2, 3])  # AUCs 0.875 and 0.5
    values = aggregate_tofu(table, reference)
    assert values["uds_privacy_mia"].value == pytest.approx(0.25, abs=1e-11)
    easier = aggregate_tofu(reference, table)  # 1 - 0.375 / 0.875, by both
    assert easier["uds_privacy_mia"].value == pytest.approx(1 - 0.375 / 0.875, abs=1e-11)
    below = attack_scores([3, 4], [1, 3.5])  # AUC 0.25
    assert aggregate_tofu(reference, below)["privacy"].value == pytest.approx(1 - 0.25 / 0.75)
    assert aggregate_tofu(reference, below)["uds_privacy_mia"].value == pytest.approx(1e-12, abs=1e-11)
