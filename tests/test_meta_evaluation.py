"""The meta-evaluation's scores by hand, and one run of it in small that is continued."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    import meta_evaluation

    return meta_evaluation


@pytest.fixture
def scores(script: ModuleType) -> ModuleType:
    import meta_evaluation_scores

    return meta_evaluation_scores


def test_scores_by_hand(scores: ModuleType) -> None:
    assert scores.faithfulness([0.9, 0.8, 0.7], [0.1, 0.2, 0.7])[0] == pytest.approx(8.5 / 9)
    assert scores.faithfulness([1.0, 2.0], [0.0, -1.0]) == (1, 1, 1)
    assert scores.relearning_score(0.1, 0.5, 0.1, 0.2) == pytest.approx(0.25)  # the retain-only model rises a quarter
    assert scores.relearning_score(0.1, 0.2, 0.1, 0.9) == 1
    assert scores.relearning_score(0.5, 0.4, 0.1, 0.2) == 1  # nothing came back
    assert scores.relearning_score(0.1, 0.5, 0.2, 0.1) == 0
    assert scores.quantisation_score(0.2, 0.4) == pytest.approx(0.5)
    assert scores.quantisation_score(0.4, 0.2) == 1
    assert scores.quantisation_score(0.0, 0.2) == 0
    assert scores.harmonic(1.0, 0.5) == pytest.approx(2 / 3)
    assert scores.harmonic(1.0, 0.0) == 0


def test_a_table_by_hand(scores: ModuleType) -> None:
    def model(value: float) -> dict[str, float]:
        return dict.fromkeys(scores.METRICS, value)

    pool = {"knowing": [model(0.8), model(0.6)], "ignorant": [model(0.2), model(0.4)]}
    attack = {"before": 0.2, "relearned": 0.6, "quantised": 0.4, "retain": 0.1, "retain_relearned": 0.3}
    rows = {row["metric"]: row for row in scores.table(pool, [{kind: model(x) for kind, x in attack.items()}])}
    assert rows["forget_prob"] | {"interval": []} == {
        "metric": "forget_prob",
        "faithfulness": 1.0,
        "interval": [],
        "relearning": pytest.approx(0.5),
        "quantisation": pytest.approx(0.5),
        "robustness": pytest.approx(0.5),
        "both": pytest.approx(2 / 3),
    }
    # Here less means that more is known: turned round, models that know have less of it, and nothing comes back.
    assert rows["memorization"]["faithfulness"] == 0
    assert rows["memorization"]["robustness"] == 1
    assert rows["memorization"]["both"] == 0
    assert scores.formatted(list(rows.values())).count("\n") == len(scores.METRICS) + 2


@pytest.mark.slow
def test_a_small_run_is_continued(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--output_dir", str(tmp_path), "--seeds", "1", "--epochs", "1", "--methods", "npo", "--utility", "0"]
    monkeypatch.setattr("sys.argv", ["meta_evaluation.py", *words, "--hidden_size", "48", "--layers", "1"])
    script.main()
    content = json.loads((tmp_path / "results.json").read_text())
    assert {row["metric"] for row in content["rows"]} == set(script.METRICS)
    assert (content["sizes"]["knowing"], content["sizes"]["ignorant"], content["sizes"]["unlearned"]) == (2, 2, 1)
    monkeypatch.setattr(script.FinetuningTrainer, "train", None)  # everything is there already
    script.main()
    assert json.loads((tmp_path / "results.json").read_text()) == content
    for other in (["--hidden_size", "96"], ["--hidden_size", "48", "--layers", "1", "--epochs", "1", "2"]):
        monkeypatch.setattr("sys.argv", ["meta_evaluation.py", *words, *other])
        with pytest.raises(SystemExit):
            script.main()
        assert "holds models made with other settings" in capsys.readouterr().err
