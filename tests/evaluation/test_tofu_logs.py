from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.logs import official_log, save
from tests.evaluation.tables import tofu_table
from unlearn_hf.benchmarks.from_logs import evaluate_from_log, read_log, read_reference, recompute, recompute_values
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.evaluation.logs.official_tofu import FILES
from unlearn_hf.evaluation.metric_value import flatten

# Official logs hold neither scores of attacks nor of token memorisation.
LOGGED_COLUMNS = tofu_table().drop(columns=["min_k", "extraction_strength", "exact_memorization"])
EXPECTED = flatten(aggregate_tofu(LOGGED_COLUMNS))


@pytest.mark.parametrize("lists", [False, True])
def test_containers_give_the_values_of_the_table(lists: bool, tmp_path: Path) -> None:
    log = official_log(lists)
    assert recompute(save(tmp_path / "eval_log_aggregated.json", log)) == pytest.approx(EXPECTED, rel=1e-12)
    zipped = tmp_path / "no_matter_what_name"
    zipped.write_bytes(gzip.compress(json.dumps(log).encode()))
    assert recompute(zipped, zipped)["forget_quality"] == 1
    assert recompute(tmp_path) == pytest.approx(EXPECTED, rel=1e-12)  # the folder stands for the log in it


def test_natural_order_of_string_keys(tmp_path: Path) -> None:
    losses = {str(i): float(i) for i in (10, 2, 1, 0, *range(3, 10), 11)}
    log = save(tmp_path / "eval_log.json", {"avg_gt_loss": losses})
    assert read_log(log).samples["answer_mean_nll"].tolist() == [float(i) for i in range(12)]


@pytest.mark.parametrize("name", FILES)
def test_single_files(name: str, tmp_path: Path) -> None:
    values = recompute(save(tmp_path / name, official_log()[name]))
    split = FILES[name]
    assert values
    assert all(key.startswith(f"{split}_") for key in values)
    assert values == pytest.approx({key: EXPECTED[key] for key in values}, rel=1e-12)


def test_folder_of_single_files_and_single_file_as_reference(tmp_path: Path) -> None:
    for name, content in official_log(lists=True).items():
        save(tmp_path / name, content)
    values = recompute(tmp_path, tmp_path / "eval_log_forget.json")
    assert values["forget_quality"] == 1
    assert values["model_utility"] == pytest.approx(EXPECTED["model_utility"])


def test_file_name_does_not_tell_the_set(tmp_path: Path) -> None:
    log = save(tmp_path / "log.json", official_log()["eval_log.json"])
    with pytest.raises(ValueError, match=r"TOFU log of one set.*eval_log_forget.json.*pass split="):
        read_log(log)
    assert recompute(log, split="retain")["retain_prob"] == pytest.approx(EXPECTED["retain_prob"])
    assert (
        read_log(save(tmp_path / "retain90_forget.json", official_log()["eval_log_forget.json"])).samples is not None
    )


def test_references_and_names_of_data_leave_the_set_to_the_file_name(tmp_path: Path) -> None:
    log = official_log()
    whole = save(tmp_path / "eval_log_aggregated.json", log)
    # A reference is of use for its forget set alone.
    assert recompute(whole, save(tmp_path / "baseline.json", log["eval_log_forget.json"]))["forget_quality"] == 1
    named = save(tmp_path / "eval_log_forget.json", log["eval_log_forget.json"])
    assert "forget_prob" in recompute(named, split="forget10")


def test_optional_keys_may_be_missing(tmp_path: Path) -> None:
    log = official_log()
    for content in log.values():
        del content["num_token_gt"]  # and truth_ratio, normalized_gt_loss, generated_text were never there
    del log["eval_log.json"]["rougeL_recall"]
    log["eval_log_aggregate_of_something_else.json"] = {"unrelated": 1}
    values = recompute(save(tmp_path / "log.json", log))
    assert "model_utility" not in values
    assert "retain_rouge" not in values
    assert values["retain_truth_ratio"] == pytest.approx(EXPECTED["retain_truth_ratio"])


def test_summed_losses_serve_where_means_are_missing(tmp_path: Path) -> None:
    log = official_log()["eval_log.json"]
    means = log.pop("avg_gt_loss")
    log["gt_loss"] = {key: 5 * mean for key, mean in means.items()}
    assert recompute(save(tmp_path / "eval_log.json", log))["retain_prob"] == pytest.approx(EXPECTED["retain_prob"])
    log["num_token_gt"]["1"] = 0
    with pytest.raises(ValueError, match=r"num_token_gt is 0 in rows \[1\]: these rows have no answer token"):
        read_log(save(tmp_path / "eval_log.json", log))


def test_texts_are_read(tmp_path: Path) -> None:
    log = official_log()["eval_log_forget.json"]
    log["generated_text"] = {str(i): [f"prompt {i}", f"generation {i}", f"answer {i}", 0.9] for i in range(3)}
    samples = read_log(save(tmp_path / "eval_log_forget.json", log)).samples
    assert samples.loc[2, ["prompt", "generation", "reference_text"]].tolist() == [
        "prompt 2",
        "generation 2",
        "answer 2",
    ]


def test_null_is_left_out_and_nan_is_an_error(tmp_path: Path) -> None:
    log = official_log()
    log["eval_log.json"]["rougeL_recall"]["0"] = None
    values = recompute_values(save(tmp_path / "log.json", log))
    assert (values["retain_rouge"].value, values["retain_rouge"].n) == (0.25, 2)
    log["eval_log.json"]["avg_gt_loss"]["1"] = math.nan
    with pytest.raises(ValueError, match=r"eval_log.json: avg_gt_loss\[1\] is NaN"):
        recompute(save(tmp_path / "log.json", log))
    log["eval_log.json"]["avg_gt_loss"]["1"] = "1.0"
    with pytest.raises(ValueError, match=r"avg_gt_loss\[1\] is '1.0', and must be a number or null"):
        recompute(save(tmp_path / "log.json", log))


def test_keys_must_agree_about_the_rows(tmp_path: Path) -> None:
    log = official_log()
    del log["eval_log.json"]["average_perturb_loss"]["2"]
    with pytest.raises(ValueError, match=r"average_perturb_loss has 2 rows and avg_gt_loss has 3.*rows \[2\]"):
        read_log(save(tmp_path / "log.json", log))
    log["eval_log.json"]["average_perturb_loss"] = {"a": [1.0]}
    with pytest.raises(ValueError, match="row key 'a'"):
        read_log(save(tmp_path / "log.json", log))
    log["eval_log.json"]["average_perturb_loss"] = "text"
    with pytest.raises(ValueError, match="is str, and must be a list or"):
        read_log(save(tmp_path / "log.json", log))


def padded(count: int, repeats: int) -> dict[str, list[Any]]:
    """A list log whose last rows repeat the first ones, as a sampler of two ranks leaves it."""
    rows = [i % (count - repeats) for i in range(count)]
    return {
        "avg_gt_loss": [0.1 + row for row in rows],
        "avg_paraphrased_loss": [0.2 + row for row in rows],
        "average_perturb_loss": [[0.3 + row, 0.4 + row] for row in rows],
    }


@pytest.mark.parametrize(
    ("name", "count", "repeats", "what"),
    [
        ("eval_log_forget.json", 308, 8, "8 of them repeated"),
        ("eval_log.json", 308, 0, "more than the 300 of the set"),  # losses differ slightly between batches
        ("eval_real_author_wo_options.json", 120, 0, "more than the 100 of the set"),
        ("eval_real_world_wo_options.json", 126, 9, "9 of them repeated"),
        ("eval_log_forget.json", 48, 8, "8 of them repeated"),
    ],
)
def test_padding_of_distributed_samplers_is_refused(
    name: str, count: int, repeats: int, what: str, tmp_path: Path
) -> None:
    log = save(tmp_path / name, padded(count, repeats))
    with pytest.raises(ValueError, match=f"lists {count} rows, {what}.*eval_log_aggregated.json"):
        read_log(log)


def test_lists_of_other_sizes_and_collapsed_models_are_fine(tmp_path: Path) -> None:
    for count in (5, 40, 200, 300, 400):
        assert len(read_log(save(tmp_path / "eval_log_forget.json", padded(count, 0))).samples) == count
    same = {key: [values[0]] * 40 for key, values in padded(40, 0).items()}
    assert recompute(save(tmp_path / "eval_log_forget.json", same))["forget_truth_ratio"] > 0


@pytest.mark.parametrize(
    ("content", "found"),
    [({"loss": 1}, "keys \\['loss'\\]"), ([1, 2], "list"), ({}, "keys \\[\\]"), ("text", "str")],
)
def test_unknown_content_is_named(content: Any, found: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no evaluation log that is known: found {found}.*TOFU_EVAL.json"):
        read_log(save(tmp_path / "what.json", content))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        read_log(tmp_path / "absent.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"a": ')
    with pytest.raises(ValueError, match="is no JSON file"):
        read_log(broken)
    broken.write_bytes(gzip.compress(b"{}")[:-5])
    with pytest.raises(ValueError, match="the gzip file is broken"):
        read_log(broken)
    with pytest.raises(ValueError, match="holds no evaluation log"):
        read_log(tmp_path)


def test_aggregates_are_no_reference(tmp_path: Path) -> None:
    log = save(tmp_path / "eval_log_aggregated.json", official_log())
    flat = tmp_path / "flat.json"
    assert evaluate_from_log(log, output_file=flat) == recompute(flat) == flatten(recompute_values(log))
    with pytest.raises(ValueError, match=r"flat.json holds aggregates only.*a reference needs values per sample"):
        recompute(log, flat)
    assert set(read_reference(log)["split"]) == set(FILES.values())
