"""The benchmarks compare the same mathematics: losses and parameters of the usual way and of the package agree."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.small_runs import largest_difference, parameters
from tests.tiny_models import build_model, build_tokenizer

SCRIPTS = Path(__file__).parents[1] / "scripts"


OBJECTIVES = ["dpo", "idk", "rmu", "undial", "ceu", "wga", "satimp", "logit_margin", "kl_uniform"]


@pytest.mark.parametrize("method", ["graddiff", "npo", "ngdiff", *OBJECTIVES])
def test_twenty_steps_of_the_usual_way_and_of_ours(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from bench_runs import load, make_trainer

    arguments = argparse.Namespace(
        model_name_or_path=None,
        tofu_folder=None,
        batch_size=3,
        steps=19,
        vocabulary=300,
        hidden_size=64,
        layers=5,  # transformers gives the hidden states after the last one normalised
        longer=0.3,
        activation_checkpointing=False,
    )
    found = {}
    for variant in (f"plain {method}", method):
        loaded = load(arguments)
        trainer = make_trainer(variant, loaded, arguments, str(tmp_path), [])
        if variant == method:
            trainer.losses = []
            finish = trainer.before_step
            trainer.before_step = lambda losses, keep=trainer.losses, then=finish: (keep.append(losses), then(losses))
        trainer.train()
        found[variant] = (parameters(trainer.model), torch.tensor(trainer.losses))
    (plain, plain_losses), (ours, our_losses) = found.values()
    assert len(our_losses) == 20
    torch.testing.assert_close(our_losses, plain_losses, rtol=1e-5, atol=1e-6)
    assert largest_difference(plain, ours) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("script", ["bench_step", "bench_memory", "bench_curves"])
def test_scripts_run(script: str, tmp_path: Path) -> None:
    options = ["--layers", "1", "--hidden_size", "64", "--vocabulary", "300", "--steps", "2", "--batch_size", "2"]
    if script != "bench_curves":
        options += ["--variants", "plain graddiff", "graddiff", "npo"]
    if script != "bench_memory":
        options += ["--rounds", "1", "--chart_file", str(tmp_path / "chart.png")]
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), *options, "--output_file", str(tmp_path / "found.json")]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert json.loads((tmp_path / "found.json").read_text())["results"]
    assert script == "bench_memory" or (tmp_path / "chart.png").stat().st_size > 5000


@pytest.mark.slow
def test_ways_of_packing_agree_and_are_timed(tmp_path: Path) -> None:
    build_model(vocab_size=400).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    command = [
        sys.executable,
        str(SCRIPTS / "bench_packing.py"),
        "--rounds",
        "1",
        "--model_name_or_path",
        str(tmp_path),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    batches = [line.split()[:2] for line in done.stdout.splitlines()[1:]]
    assert batches == [["scoring", "8"], ["a", "step"], ["a", "step"]]


@pytest.mark.slow
def test_the_start_is_timed() -> None:
    command = [sys.executable, str(SCRIPTS / "bench_start.py"), "--rounds", "1"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert [line[:24].strip() for line in done.stdout.splitlines()] == ["first step of unlearn", "--help", "list"]
