"""`unlearn-hf audit`: what cannot be audited is refused in a line, and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.audits import hashes
from tests.cli.own_rows import write_rows
from unlearn_hf.audit import plan
from unlearn_hf.cli.main import BAD_INPUT, main

BAD: dict[str, tuple[list[str], str]] = {
    "no run": (["nothing"], "run: 'nothing' is no run folder"),
    "two runs": (["run", "retain"], "run: run retain; name one run folder"),
    "no word": ([], "run: missing"),
    "a reference of other rows": (["run", "--reference", "other"], "was trained on other rows than this run keeps"),
    "a reference that is the run": (["run", "--reference", "run"], "reference: 'run' is the audited run itself"),
    "a target that is the run": (["run", "--target", "./run"], "is the audited run itself, or has the same weights"),
    "no such target": (["run", "--target", "./no/such"], "target: './no/such' is not there"),
    "an unknown attack": (["run", "--attacks", "relearn"], "'relearn' is not known; did you mean relearning?"),
    "k above n": (["run", "--samples", "4", "--k", "8"], "k: 8 is not from 1 to the 4 samples"),
    "no samples": (["run", "--samples", "0"], "samples: 0 is no whole number above zero"),
    "no steps": (["run", "--relearning_steps", "0"], "relearning_steps: 0 is no whole number above zero"),
    "no rate": (["run", "--relearning_rate", "-1"], "relearning_rate: -1.0 is not positive"),
    "no key": (["run", "--sign", "no.pem"], "sign: there is no file 'no.pem'"),
    "signing what is verified": (["run", "--verify", "--sign", "no.pem"], "verify: it changes nothing"),
    "an unknown option": (["run", "--sample", "3"], "sample: unknown; did you mean samples?"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse(lambda: None, *BAD[name], capsys)


def refuse(change: Callable[[], Any], words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    change()
    before = hashes(Path())
    assert main(["audit", *words]) == BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert hashes(Path()) == before


def test_folders_that_cannot_be_audited(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(plan.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 100, 100))
        refuse(lambda: None, ["run"], "has room for 100 B, and the audit writes up to", capsys)
    without = Path("holdout.jsonl")
    text = without.read_text()
    refuse(lambda: without.write_text(text + Path("forget.jsonl").read_text()), ["run"], "holdout_file", capsys)
    without.write_text(text)
    refuse(lambda: Path("forget.jsonl").rename("moved.jsonl"), ["run"], "forget.jsonl' is not there", capsys)
    Path("moved.jsonl").rename("forget.jsonl")
    record = json.loads((run / "run.json").read_text())

    def changed(**configuration: Any) -> None:
        content = {**record, "configuration": {**record["configuration"], **configuration}}
        (run / "run.json").write_text(json.dumps(content))

    refuse(lambda: changed(holdout_file=None), ["run", "--attacks", "membership"], "no model has seen", capsys)
    changed()
    for name in ("forget", "retain"):
        write_rows(Path(f"{name}_text.jsonl"), [{"text": f"A text about {name} {i}."} for i in range(4)])
    refuse(
        lambda: changed(forget_file="forget_text.jsonl", retain_file="retain_text.jsonl", holdout_file=None),
        ["run"], "is about rows without a question and an answer each", capsys,
    )  # fmt: skip
    (run / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    refuse(lambda: None, ["run"], "is interrupted; finish it with --resume", capsys)
    (run / "run.json").write_text(json.dumps(record))
    refuse(lambda: [path.unlink() for path in run.glob("tokenizer*")], ["run"], "holds no tokenizer", capsys)
