from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.logs import by_index, evaluation, losses, muse_evaluation, save
from tests.evaluation.tables import tofu_table
from unlearn_hf.benchmarks.benchmark_of_log import benchmark_of
from unlearn_hf.benchmarks.from_logs import read_log, recompute, recompute_values
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.evaluation.logs.open_unlearning import flat_name, truth_ratio_definition
from unlearn_hf.evaluation.metric_value import flatten


def test_evaluation_gives_the_values_of_the_table(tmp_path: Path) -> None:
    log = save(tmp_path / "TOFU_EVAL.json", evaluation())
    values = recompute(log, log)
    assert values.pop("privleak_logged") == 23.5
    assert "forget_quality_logged" not in values  # null
    table = tofu_table()
    expected = flatten(aggregate_tofu(table, table, compatibility="open_unlearning"))
    assert values == pytest.approx(expected, rel=1e-12)
    plain = recompute(log, compatibility="unlearn_hf")
    assert plain["model_utility"] == pytest.approx(expected["model_utility_geometric"], rel=1e-12)
    assert recompute(tmp_path)["privleak"] == values["privleak_versus_half"]  # no reference: 0.5, as there


def test_only_some_metrics(tmp_path: Path) -> None:
    log = {key: value for key, value in evaluation().items() if key.startswith(("forget_Q_A_PARA", "mia", "ra"))}
    log["mia_zlib"] = {"agg_value": 0.75}
    log["retain_Q_A_ROUGE"] = {"agg_value": None, "value_by_index": None}
    values = recompute(save(tmp_path / "log.json", log))
    assert values["forget_paraphrase_prob"] == pytest.approx(0.8 / 3)
    assert values["mia_min_k_auc"] == pytest.approx(5.5 / 9)
    assert values["mia_zlib_auc_logged"] == 0.75  # no scores per sample to compute it from
    assert not {"forget_prob", "model_utility", "retain_rouge", "forget_truth_ratio"} & set(values)


def test_reference_without_truth_ratios_serves_privleak(tmp_path: Path) -> None:
    log = save(tmp_path / "log.json", evaluation())
    reference = save(tmp_path / "reference.json", {"mia_min_k": evaluation()["mia_min_k"]})
    values = recompute(log, reference)
    assert values["privleak"] == 0
    assert "forget_quality" not in values
    with pytest.raises(ValueError, match="the reference has neither truth ratios of forget rows nor Min-K"):
        recompute(log, save(tmp_path / "reference.json", {"ra_Q_A_Prob": evaluation()["ra_Q_A_Prob"]}))


def test_null_rows_are_left_out_and_nan_is_an_error(tmp_path: Path) -> None:
    log = evaluation()
    log["exact_memorization"]["value_by_index"]["0"] = {"score": None}
    log["forget_Q_A_Prob"]["value_by_index"]["0"] = None
    values = recompute_values(save(tmp_path / "log.json", log))
    assert (values["exact_memorization"].value, values["exact_memorization"].n) == (0.5, 2)
    assert values["forget_prob"].value == pytest.approx(1.25 / 2)
    log["forget_Q_A_Prob"]["value_by_index"]["1"] = {"prob": 0.1, "avg_loss": math.nan}
    with pytest.raises(ValueError, match=r"forget_Q_A_Prob\[1\]: avg_loss is NaN"):
        recompute(save(tmp_path / "log.json", log))


def test_definition_of_logged_truth_ratios(tmp_path: Path) -> None:
    for definition in ("open_unlearning", "prob_mean"):
        samples = read_log(save(tmp_path / "log.json", evaluation(definition))).samples
        assert set(samples.loc[samples["split"] == "forget", "truth_ratio_definition"]) == {definition}
    log = evaluation()
    log["forget_truth_ratio"]["value_by_index"]["0"]["score"] = 0.7
    with pytest.raises(ValueError, match="truth ratios of forget follow from its logged losses neither"):
        read_log(save(tmp_path / "log.json", log))


def test_mixed_definitions_are_made_right_where_losses_are_logged(tmp_path: Path) -> None:
    newer = save(tmp_path / "newer.json", evaluation("prob_mean"))
    older = save(tmp_path / "older.json", evaluation())
    assert recompute(newer, older)["forget_quality"] == recompute(older, newer)["forget_quality"] == 1


def test_mixed_definitions_are_an_error_where_they_are_not(tmp_path: Path) -> None:
    older, newer = evaluation(), evaluation("prob_mean")
    for log in (older, newer):
        del log["forget_Q_A_PARA_Prob"]
    older_path, newer_path = save(tmp_path / "older.json", older), save(tmp_path / "newer.json", newer)
    with pytest.raises(
        ValueError, match=r"different definitions: .*prob_mean\) here, open_unlearning in the reference"
    ):
        recompute(newer_path, older_path)
    values = recompute(older_path, older_path)
    assert values["forget_quality"] == 1
    assert values["forget_truth_ratio"] == pytest.approx(2 / 3)


def test_definition_without_losses() -> None:
    table = tofu_table().iloc[:3][["split", "index"]]
    above_one = table.assign(truth_ratio=[0.5, 1.0, 2.0])
    assert truth_ratio_definition(above_one, None) == "open_unlearning"
    below = table.assign(truth_ratio=[0.5, 0.9, 0.2])
    assert truth_ratio_definition(below, float(np.mean([0.5, 0.9, 0.2]))).startswith("undetermined")
    retain = below.assign(split="retain")
    assert truth_ratio_definition(retain, float(np.mean([0.5, 0.1, 0.8]))) == "open_unlearning"
    assert truth_ratio_definition(retain, float(np.mean([0.5, 0.9, 0.2]))) == "prob_mean"


def test_several_paraphrases_are_averaged(tmp_path: Path) -> None:
    log = {
        "forget_Q_A_PARA_Prob": by_index(losses([[1.0, 3.0], [2.0, 2.0]])),
        "forget_Q_A_Prob": by_index(losses([1.0, 1])),
    }
    samples = read_log(save(tmp_path / "log.json", log)).samples
    assert samples["paraphrase_mean_nll"].tolist() == [2.0, 2.0]


def test_summary_gives_aggregates_as_logged(tmp_path: Path) -> None:
    nine = {f"{prefix}_{part}": 0.5 for prefix in ("retain", "ra", "wf") for part in ("Q_A_ROUGE", "Truth_Ratio")}
    nine |= {"retain_Q_A_Prob": 0.5, "ra_Q_A_Prob_normalised": 0.5, "wf_Q_A_Prob_normalised": 1.0}
    summary = {**nine, "model_utility": 0.1, "forget_quality": None, "mia_min_k": 0.75, "privleak": 1.0}
    path = save(tmp_path / "TOFU_SUMMARY.json", summary)
    values = recompute(path)
    assert values["model_utility"] == pytest.approx(9 / 17)  # recomputed from the nine
    assert (values["mia_min_k_auc"], values["privleak"]) == (0.75, 1.0)
    assert "forget_quality" not in values
    reference = save(tmp_path / "reference.json", {"mia_min_k": 0.5, "model_utility": 0.6})
    assert recompute(path, reference)["privleak"] == pytest.approx(-50)
    with pytest.raises(ValueError, match=r"holds aggregates only, but comparing with a reference needs values"):
        recompute(path, save(tmp_path / "reference.json", {"model_utility": 0.6}))
    with pytest.raises(ValueError, match=r"EVAL.json rather than"):
        recompute(save(tmp_path / "TOFU_EVAL.json", evaluation()), path)


def test_muse_evaluation(tmp_path: Path) -> None:
    log = save(tmp_path / "MUSE_EVAL.json", muse_evaluation())
    values = recompute(log)
    assert values["forget_verbmem_rouge"] == 0.5
    assert values["knowmem_retain"] == 50
    assert values["privleak"] == values["privleak_versus_half"]
    assert values["privleak_muse_books"] == pytest.approx(100 * (3.5 / 9 - 0.5393) / 0.5393)
    assert recompute(log, log)["privleak"] == 0
    assert "privleak_muse_news" not in recompute(log, corpus="books")
    assert benchmark_of(read_log(log)) == "muse"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("forget_Q_A_Prob", "forget_prob"),
        ("ra_Q_A_Prob", "real_authors_answer_prob"),
        ("wf_Q_A_PERT_Prob", "world_facts_perturbed_prob"),
        ("ra_Q_A_Prob_normalised", "real_authors_prob"),
        ("wf_Truth_Ratio", "world_facts_truth_ratio"),
        ("forget_Truth_Ratio", "forget_truth_ratio"),
        ("mia_gradnorm", "mia_gradient_norm_auc"),
        ("mia_min_k_plus_plus", "mia_min_k_plus_plus_auc"),
        ("forget_Q_A_gibberish", "forget_fluency"),
        ("wmdp_bio/acc", None),
    ],
)
def test_names(theirs: str, ours: str | None) -> None:
    assert flat_name(theirs) == ours
