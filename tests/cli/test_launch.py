"""The command line under `accelerate launch`, with two processes on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.own_rows import TRAINING
from unlearn_hf.common.run_record import read_record

ROOT = Path(__file__).parents[2]


def launch(folder: Path, script: str, *words: str, verb: str = "unlearn") -> subprocess.CompletedProcess[str]:
    # `accelerate` lies beside this Python, whether or not the environment is activated
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "VERB": verb, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [str(ROOT / "scripts" / script), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.slow
def test_two_processes_share_the_work_and_one_writes(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "method: eupmu\nmodel_name_or_path: model\nforget_file: forget.jsonl\nretain_file: retain.jsonl\n"
        f"output_dir: {tmp_path / 'run'}\nmax_new_tokens: 4\n"
    )
    options = [word for word in TRAINING if word != "--use_cpu"]  # found out without being told
    done = launch(workplace, "launch_ddp.sh", str(tmp_path / "own.yaml"), *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder:") == 1
    record = read_record(tmp_path / "run")
    assert record["machine"]["processes"] == 2
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert state["global_step"] == 1  # eight rows, four per process
    assert (tmp_path / "run" / "evaluation.json").is_file()

    evaluated = launch(
        workplace, "launch_ddp.sh", str(tmp_path / "own.yaml"), "--model_name_or_path", str(tmp_path / "run"),
        "--output_dir", str(tmp_path / "again"), verb="evaluate",
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    first, second = (
        {metric["name"]: metric["value"] for metric in json.loads((folder / "evaluation.json").read_text())["metrics"]}
        for folder in (tmp_path / "run", tmp_path / "again")
    )
    assert first.keys() == second.keys()
    assert all(abs(first[name] - second[name]) < 1e-5 for name in first)

    refused = launch(workplace, "launch_ddp.sh", str(tmp_path / "own.yaml"), *options)
    assert refused.returncode != 0
    assert refused.stderr.count("is not empty; --resume continues") == 1
