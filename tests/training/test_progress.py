"""What a person sees while training, and what trackers get."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from transformers import ProgressCallback

from tests.conftest import build_model, build_tokenizer
from unlearn_hf.methods import METHODS
from unlearn_hf.training.progress import columns_of, header, line, sentences, show_progress

ROWS = {
    name: [{"question": f"Who is author {i}?", "answer": f"It is {name} {i}."} for i in range(8)]
    for name in ("forget", "retain")
}


def trained(folder: Path, method: str = "eupmu", **options: Any) -> Any:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "logging_steps": 2,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "verdict": False,
        **options,
    }
    callbacks, notebook = settings.pop("callbacks", None), settings.pop("notebook", False)
    trainer = METHODS[method](
        build_model(),
        METHODS[method].config_class(output_dir=str(folder), **settings),
        ROWS["forget"],
        ROWS["retain"],
        processing_class=build_tokenizer(),
        callbacks=callbacks,
    )
    if notebook:  # as transformers sets a trainer up there
        from transformers.utils.notebook import NotebookProgressCallback

        trainer.add_callback(NotebookProgressCallback())
        show_progress(trainer)
    trainer.train()
    return trainer


def test_lines_are_columns_with_both_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = trained(tmp_path, disable_tqdm=True)
    out = capsys.readouterr().out
    names, first, second, end = out.splitlines()
    assert names.split("  ")[0].split()[:2] == ["step", "epoch"]
    for words in ("forget loss", "retain loss", "learning rate"):
        assert words in names
    log = trainer.state.log_history
    assert first.split()[0] == "2"
    assert f"{log[0]['forget_loss']:.4g}" in first
    assert f"{log[1]['retain_loss']:.4g}" in second
    assert end.startswith("4 steps in ")
    assert "{" not in out
    assert {"forget_weight", "retain_weight", "grad_norm"} <= set(log[0])  # all of it is kept


def test_the_bar_shows_both_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = trained(tmp_path, disable_tqdm=False)
    bar = capsys.readouterr().err.rpartition("training:")[2]
    assert "4/4" in bar
    for name, value in trainer.current_losses.items():
        assert f"{name}={value:.3g}" in bar


def test_a_notebook_gets_a_table_with_both_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    display = pytest.importorskip("IPython.display")
    shown: list[str] = []

    class Output:
        def update(self, html: Any) -> None:
            shown.append(html.data)

    monkeypatch.setattr(display, "display", lambda html, **_: shown.append(html.data) or Output())
    trainer = trained(tmp_path, notebook=True, disable_tqdm=True, eval_strategy="no")
    kinds = [type(each).__name__ for each in trainer.callback_handler.callbacks]
    assert kinds.count("NotebookProgress") == 1
    assert "NotebookProgressCallback" not in kinds
    log = [each for each in trainer.state.log_history if "forget_loss" in each]
    for text in ("forget loss", "retain loss", "learning rate", f"{log[1]['forget_loss']:.4g}"):
        assert text in shown[-1], text
    assert "{" not in capsys.readouterr().out


def test_a_callback_of_the_user_stays(tmp_path: Path) -> None:
    class Own(ProgressCallback):
        pass

    own = Own()
    trainer = trained(tmp_path, disable_tqdm=True, callbacks=[own])
    kinds = [type(each) for each in trainer.callback_handler.callbacks]
    assert own in trainer.callback_handler.callbacks
    assert not {"PrinterCallback", "ProgressCallback"} & {kind.__name__ for kind in kinds}


def test_what_a_stop_rule_writes_does_not_take_the_place_of_the_log(tmp_path: Path) -> None:
    trainer = trained(tmp_path, stop_when="forget_prob < 0", stop_interval=2, disable_tqdm=True)
    log = trainer.state.log_history
    assert [each["step"] for each in log if "forget_loss" in each] == [2, 4]
    assert [each["step"] for each in log if "stop_forget_prob" in each] == [2, 4]


def test_columns_fit_into_the_terminal() -> None:
    logs = {"step": 10, "epoch": 0.5, "loss": 1.0, "forget_loss": 2.0, "retain_loss": 3.0, "dual": 0.1, "zeta": 1.0}
    wide = columns_of(logs)
    assert wide == ["step", "epoch", "forget_loss", "retain_loss", "dual", "zeta"]
    for width in (20, 40, 60):
        names = columns_of(logs, width)
        assert names == wide[: len(names)]
        assert len(header(names)) == len(line(names, logs)) <= width
    assert line(["step", "gone"], logs).split() == ["10"]


def test_evaluations_are_sentences_without_counters_and_variants() -> None:
    logs = {"eval_forget_prob": 0.123456, "eval_runtime": 3.0, "epoch": 1.0, "eval_forget_prob_open_unlearning": 0.2}
    (found,) = sentences(logs, 7, 100)
    assert found.startswith("evaluated after step 7: forget_prob 0.1235")
    assert "runtime" not in found
    assert sentences({"epoch": 1.0}, 7, 100) == []
    assert all(len(each) <= 40 for each in sentences({f"eval_metric_{i}": 0.5 for i in range(9)}, 7, 40))


def test_tensorboard_reads_back_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="NOT tested: tensorboard"
    )
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trainer = trained(tmp_path / "run", report_to=["tensorboard"], disable_tqdm=True)
    events = reading.EventAccumulator(str(tmp_path / "events")).Reload()
    log = [each for each in trainer.state.log_history if "forget_loss" in each]
    for name in ("forget_loss", "retain_loss", "forget_weight", "retain_weight", "learning_rate", "grad_norm"):
        found = events.Scalars(f"train/{name}")
        assert [each.step for each in found] == [2, 4]
        assert [each.value for each in found] == pytest.approx([each[name] for each in log], rel=1e-5), name


def test_trackio_reads_back_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio", reason="NOT tested: trackio")
    import trackio.sqlite_storage
    import trackio.utils

    for module in (trackio.utils, trackio.sqlite_storage):
        if hasattr(module, "TRACKIO_DIR"):
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    trainer = trained(tmp_path / "run", report_to=["trackio"], disable_tqdm=True, project="unlearning", run_name="one")
    (file,) = (tmp_path / "trackio").rglob("*.db")
    rows = sqlite3.connect(file).execute("SELECT metrics FROM metrics ORDER BY step, id").fetchall()
    kept = [json.loads(text) for (text,) in rows]
    log = [each for each in trainer.state.log_history if "forget_loss" in each]
    for name in ("forget_loss", "retain_loss", "forget_weight", "retain_weight"):
        assert [each[f"train/{name}"] for each in kept if f"train/{name}" in each] == pytest.approx(
            [each[name] for each in log]
        )
