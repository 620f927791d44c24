"""What a report says of runs, whole and damaged, ours and others'."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.report.conftest import NASTY, ROWS, sample_table
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.cli.main import main
from unlearn_hf.common.ledger import LedgerEntry, write_ledger
from unlearn_hf.report.comparison import differing_settings, frontier, metric_lines, settings_of_some
from unlearn_hf.report.intervals import bootstrap_intervals, per_sample
from unlearn_hf.report.requests import request_chains
from unlearn_hf.report.runs import RETAIN_ONLY, TARGET, Run, read_runs

Make = Callable[..., Path]


def settings(**values: object) -> dict[str, object]:
    return {"configuration": {"method": "npo", "learning_rate": 1e-5, "output_dir": "x", **values}}


def values_of(loss: float, **options: int) -> dict:
    return dict(aggregate_tofu(sample_table(loss, **options), fingerprint="data"))


def test_the_verb_writes_page_and_pictures(make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = make_run("before", 0.01)
    runs = [
        make_run("a", 2.0, settings(model_name_or_path=str(target))),
        make_run("b", 4.0, settings(model_name_or_path=str(target), learning_rate=1e-4)),
    ]
    out = tmp_path / "report"
    assert main(["report", *map(str, runs), "--output_dir", str(out)]) == 0
    page = (out / "report.html").read_text()
    for name in ("frontier", "curves", "truth_ratio"):
        assert (out / "figures" / f"{name}.svg").read_text().lstrip().startswith("<?xml")
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "http" not in page.replace("http-equiv", "")  # no network
    assert "1 min 1 s" in page
    assert "0.0001" in page
    assert "3 models" in page  # the target was found beside the model that the runs began with
    assert main(["report", *map(str, runs), "--output_dir", str(out)]) == 2
    assert "--overwrite sets it aside" in capsys.readouterr().err
    assert main(["report", *map(str, runs), "--output_dir", str(out), "--overwrite"]) == 0
    assert (tmp_path / "report.backup-1" / "report.html").read_text() == page


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("run.json", "{", "not a record of a run"),
        ("evaluation.json", "{", "is no JSON file"),
        ("samples.parquet", "no table", "its hash differs"),
        ("trainer_state.json", "[", "is no JSON file"),
        ("verdict.json", '{"before": [1], "forgotten": "yes"}', "before cannot be read"),
    ],
)
def test_what_is_damaged_is_one_line_and_the_rest_is_there(
    make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, told: str
) -> None:
    whole, damaged = make_run("whole", 2.0, settings()), make_run("damaged", 3.0, settings())
    (damaged / name).write_text(content)
    words = [str(whole), str(damaged), str(tmp_path / "nothing"), "--output_dir", str(tmp_path / "report")]
    assert main(["report", *words]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert sum(told in line and "damaged" in line for line in lines) == 1
    assert sum("nothing" in line for line in lines) == 1
    page = (tmp_path / "report" / "report.html").read_text()
    assert "2 models" in page
    assert told.split()[0] in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "none is named"),
        (["NOWHERE"], "no such file or folder"),
        (["EMPTY"], "holds no evaluation log"),
        (["RUN", "--forget_metric", "forget_prop"], "is in none of the runs"),
        (["RUN", "--utility_metric", "privleak_versus_half"], "none of the runs"),
        (["RUN", "--target", "NOWHERE"], "target:"),
        (["RUN", "--max_answers", "-1"], "negative"),
    ],
)
def test_bad_input(
    make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    (tmp_path / "empty").mkdir()
    paths = {"RUN": make_run("run", 2.0, settings()), "NOWHERE": tmp_path / "no", "EMPTY": tmp_path / "empty"}
    given = [str(paths.get(word, word)) for word in words]
    assert main(["report", *given, "--output_dir", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out" / "report.html").exists()


def test_values_of_different_definitions_never_share_a_line() -> None:
    ours, others = values_of(2.0), values_of(2.0, rows=20)
    other_definition = {"forget_prob": replace(ours["forget_prob"], definition="median")}
    runs = [Run(Path("x"), "x", values=values) for values in (ours, others, other_definition)]
    lines = [line for line in metric_lines(runs) if line.name == "forget_prob"]
    assert [list(line.values) for line in lines] == [[0], [1], [2]]
    assert all("cannot be compared" in line.others for line in lines)
    assert not any(line.best for line in lines)
    front = frontier(runs, metric_lines(runs))
    assert front is not None
    assert (front.points, front.left_out) == ([0], [1, 2])


def test_the_frontier_is_of_unlearned_runs_only() -> None:
    roles = ("run", "run", "run", TARGET, RETAIN_ONLY)
    points = [(0.1, 0.5), (0.3, 0.9), (0.4, 0.6), (0.99, 1.0), (0.01, 1.0)]  # forget_prob is to be low
    example = values_of(2.0)
    runs = []
    for role, (forget, utility) in zip(roles, points, strict=True):
        chosen = {"forget_prob": forget, "model_utility": utility}
        values = {name: replace(example[name], value=value) for name, value in chosen.items()}
        runs.append(Run(Path(role), role, role, values=values))
    lines = metric_lines(runs)
    front = frontier(runs, lines)
    assert front is not None
    assert front.points == [0, 1, 2, 3, 4]
    assert front.best == [0, 1]
    assert {line.name: line.best for line in lines} == {"forget_prob": {0}, "model_utility": {1}}


def test_intervals_are_of_the_number_that_stands_in_the_results() -> None:
    table = sample_table(1.0)
    values = aggregate_tofu(table)
    found = bootstrap_intervals(values, table)
    assert {"forget_prob", "forget_rouge", "forget_truth_ratio", "world_facts_prob", "model_utility"} <= set(found)
    for name, (low, high) in found.items():
        assert low <= values[name].value <= high
    forget = table[table["split"] == "forget"]
    assert per_sample(values["forget_prob"], table) == pytest.approx(np.exp(-forget["answer_mean_nll"]))
    # By the theory of means, the interval of n rows is some 2 x 1.96 sd / sqrt(n) wide.
    sample = per_sample(values["retain_rouge"], table)
    assert sample is not None
    width = found["retain_rouge"][1] - found["retain_rouge"][0]
    assert width == pytest.approx(2 * 1.96 * sample.std() / ROWS**0.5, rel=0.15)
    wrong = replace(values["forget_prob"], value=values["forget_prob"].value * 1.01)
    assert per_sample(wrong, table) is None


def test_settings_that_differ() -> None:
    first = Run(Path("a"), "a", record=settings(epsilon=0.1))
    second = Run(Path("b"), "b", record=settings(learning_rate=1e-4))
    log = Run(Path("c"), "c")
    assert differing_settings([first, log, second]) == {
        "learning_rate": ["1e-05", "", "0.0001"],
        "epsilon": ["0.1", "", ""],
    }
    assert settings_of_some([first, log, second], ["learning_rate", "epsilon"]) == {"epsilon"}


def test_names_are_unlike(make_run: Make) -> None:
    paths = [make_run("one/npo", 2.0, settings()), make_run("two/npo", 3.0, settings())]
    runs, problems = read_runs(paths)
    assert [run.name for run in runs] == ["one/npo", "two/npo"]
    assert not problems


def test_forget_quality_comes_from_the_retain_only_model(make_run: Make) -> None:
    retain, run = make_run("retain", 1.8), make_run("run", 2.0, settings())
    assert "forget_quality" not in read_runs([run])[0][0].values
    runs, _ = read_runs([run], retain_only=retain / "evaluation.json")
    assert [each.role for each in runs] == [RETAIN_ONLY, "run"]
    assert runs[0].values["forget_quality"].value == 1.0
    assert 0 <= runs[1].values["forget_quality"].value < 1.0


def test_everything_that_a_model_wrote_is_escaped(make_run: Make, tmp_path: Path) -> None:
    run = make_run("$a<b>$", 2.0, settings(note=NASTY), answer=NASTY)
    (run / "verdict.json").write_text(json.dumps({"leaking_rows": [{"says": NASTY}], "sentences": [NASTY]}))
    assert main(["report", str(run), "--output_dir", str(tmp_path / "out"), "--title", NASTY]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<script>") == 1
    assert "<img src=x" not in page
    assert "&lt;script&gt;window.broken" in page


def test_requests_stand_in_a_table_with_the_verdict_after_each_run(
    make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries: list[LedgerEntry] = []
    for name in ("first", "second", "<third>"):
        earlier = {entry.request: {"forgotten": "no", "leaking": 5, "known": 9} for entry in entries}
        if "first" in earlier:
            earlier["first"] = {"forgotten": "not_measured", "why": "its rows are gone"}
        previous = entries[-1].fingerprint if entries else None
        rows = {"count": 9, "sha256": "a", "fingerprints": []}
        verdict = {"forgotten": "partly", "kept": "yes", "leaking": 2, "known": 8}
        entries.append(LedgerEntry(name, None, name, None, "npo", rows, verdict, earlier, "0" * 64, previous))
        write_ledger(make_run(name.strip("<>"), 2.0, settings()), entries)
    folders = [tmp_path / name for name in ("first", "second", "third")]
    runs, problems = read_runs(folders)
    assert not problems
    (chain,) = request_chains(runs)  # the shorter ones are part of it
    assert [[later.verdict_on(entry).get("forgotten") for later in chain] for entry in chain] == [
        ["partly", "not_measured", "not_measured"],
        [None, "partly", "no"],
        [None, None, "partly"],
    ]
    assert main(["report", *map(str, folders), "--output_dir", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "after second" in page
    assert "(2 of 8)" in page
    assert "(5 of 9)" in page
    assert "&lt;third&gt;" in page
    assert "<third>" not in page
    capsys.readouterr()
    (folders[2] / "ledger.jsonl").write_text("{}")
    assert main(["report", *map(str, folders), "--output_dir", str(tmp_path / "damaged")]) == 0
    assert "ledger.jsonl, line 1: it is no line of a ledger" in capsys.readouterr().err
    assert "after second" in (tmp_path / "damaged" / "report.html").read_text()
