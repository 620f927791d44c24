"""The study of objectives: its choice of a learning rate, and that a stopped study goes on without losing a run."""

from __future__ import annotations

import json
from types import ModuleType

import pytest

from tests.conftest import load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("study_objectives")


def run(rate: float, forget: float, retain: float) -> dict[str, float]:
    return {"learning_rate": rate, "forget_prob": forget, "retain_prob": retain}


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param([run(1e-4, 0.5, 0.9), run(2e-4, 0.1, 0.86), run(3e-4, 0.0, 0.8)], (2e-4, True), id="most"),
        pytest.param([run(1e-4, 0.5, 0.7), run(2e-4, 0.1, 0.8)], (2e-4, False), id="none keeps enough"),
        pytest.param([run(1e-4, 0.5, 0.9), run(2e-4, 0.0, float("nan"))], (1e-4, True), id="one diverged"),
        pytest.param([run(2e-4, 0.0, float("nan")), run(1e-4, 0.0, float("nan"))], (1e-4, False), id="all diverged"),
    ],
)
def test_the_chosen_rate_forgets_most_of_those_that_keep(script, runs, expected) -> None:
    assert script.choose_rate(runs, retain_before=0.9) == expected


def test_results_outlive_a_line_that_was_not_finished(script, tmp_path) -> None:
    path = tmp_path / "results.jsonl"
    rows = [dict(zip(script.KEYS, ("npo", "ngdiff", rate, 0), strict=True)) for rate in (1e-4, 2e-4)]
    results = script.Results(path, {"epochs": 1})
    for row in rows:
        results.add(row)
    path.write_text(path.read_text()[:-5])  # killed while it wrote
    again = script.Results(path, {"epochs": 1})
    assert again.rows == rows[:1]
    assert again.find(rows[0]) == rows[0]
    assert again.find(rows[1]) is None
    again.add(rows[1])
    assert script.Results(path, {"epochs": 1}).rows == rows
    with pytest.raises(ValueError, match="output_dir"):
        script.Results(path, {"epochs": 2})


def test_a_finished_study_runs_nothing_again(script, tmp_path, capsys) -> None:
    words = ["--output_dir", str(tmp_path), "--objectives", "npo", "--methods", "ngdiff", "--learning_rates", "1e-4"]
    words += ["3e-3", "--seeds", "2", "--epochs", "1", "--hidden_size", "48", "--target_epochs", "1"]
    script.main(words)
    lines = (tmp_path / "results.jsonl").read_text()
    runs = [json.loads(line) for line in lines.splitlines()[1:]]
    assert [row["seed"] for row in runs if row["objective"] == "npo"] == [0, 0, 1]
    assert [row["forget_quality"] for row in runs if row["objective"] == "retain_only"] == [1.0, 1.0]
    table = (tmp_path / "table.md").read_text()
    assert "| npo | ngdiff |" in table
    assert (tmp_path / "objectives.png").stat().st_size > 0
    script.main(words)
    assert (tmp_path / "results.jsonl").read_text() == lines
    assert (tmp_path / "table.md").read_text() == table
