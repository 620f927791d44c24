"""What is not needed before the first step is not imported before it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.own_rows import TRAINING
from unlearn_hf.common.importing import importing

# Runs `unlearn` up to its first step, and says which modules it took.
PROGRAM = """
import json, os, sys
import transformers
from unlearn_hf.cli.main import main

def first_step(*_, **__):
    print(json.dumps(sorted({*(name.split(".")[0] for name in sys.modules), *sys.modules})))
    sys.stdout.flush()
    os._exit(0)

transformers.Trainer.training_step = first_step
main(sys.argv[1:])
"""
LATER = {
    "scipy.stats": "forget quality",
    "sklearn": "the AUC of attacks",
    "nltk": "ROUGE",
    "rouge_score": "ROUGE",
    "matplotlib": "figures",
    "evaluate": "metrics by name",
    "lm_eval": "its tasks",
    "torch.utils.tensorboard": "report_to",
    "torchjd": "weightings of its own",
    "vllm": "generation_backend",
}


def test_the_first_step_waits_for_nothing_that_comes_later(workplace: Path, tmp_path: Path) -> None:
    words = ["--method", "npo", "--model_name_or_path", "model", "--forget_file", "forget.jsonl"]
    words += ["--retain_file", "retain.jsonl", "--output_dir", str(tmp_path / "run"), *TRAINING]
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, "unlearn", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=workplace,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert found.returncode == 0, found.stderr
    modules = json.loads(found.stdout.splitlines()[-1])
    assert {"torch", "transformers", "unlearn_hf.training.unlearning"} <= set(modules)
    assert not set(modules) & set(LATER)


@pytest.mark.parametrize("collects", [True, False])
def test_collection_waits_for_imports_and_goes_on_as_before(collects: bool) -> None:
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        with importing():
            assert not gc.isenabled()
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()
