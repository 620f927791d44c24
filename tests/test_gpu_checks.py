"""Every part of the checks on a GPU runs on the CPU, on tiny shapes, or says why not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import build_model, build_tokenizer

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "gpu_checks.sh"
ON_GPUS_ONLY = {"fp16", "liger"}


def checks(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path}
    command = ["bash", str(SCRIPT), "--output_dir", str(folder / "checks"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def rows(folder: Path, part: str) -> list[dict[str, object]]:
    return list(json.loads((folder / "checks" / f"{part}.json").read_text())["rows"])


@pytest.mark.slow
def test_every_part_on_the_cpu(tmp_path: Path) -> None:
    build_model().save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    words = ["--device", "cpu", "--model_name_or_path", str(tmp_path / "model"), "--tofu_folder", "mini"]
    found = checks(tmp_path, *words)
    assert found.returncode == 0, found.stderr[-2000:]
    parts = {path.stem: rows(tmp_path, path.stem) for path in (tmp_path / "checks").glob("*.json")}
    assert len(parts) == 17
    for part, each in parts.items():
        skipped = [row for row in each if str(row.get("note", "")).startswith("skipped: ")]
        assert each, part
        assert (len(skipped) == len(each)) is (part in ON_GPUS_ONLY), each
        assert all("seconds" in row for row in each if row not in skipped)
    assert all(
        "passed" in str(row["note"]) for part, each in parts.items() if part.startswith("tests_") for row in each
    )
    assert all(row["ratio"] > 0 for row in parts["steps_8b_lora"][1:] if "seconds" in row)  # type: ignore[operator]
    assert {"target", "retain_only", "npo_full"} <= {row["case"] for row in parts["tofu"]}
    assert found.stdout.count("\n| ") > 50


@pytest.mark.slow
def test_parts_resume_and_say_what_is_missing(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--parts", "attention"]
    ended = checks(tmp_path, *words, "--limit", "0")
    assert ended.returncode == 1
    assert "not finished: attention (0 seconds were over); the same command goes on with them." in ended.stdout
    found = checks(tmp_path, *words, "liger", "tofu")
    assert found.returncode == 0, found.stderr[-2000:]
    cases = {str(row["case"]): str(row["note"]) for row in rows(tmp_path, "attention")}
    assert cases["flash_attention_2"].startswith("skipped: ")
    for name in ("sdpa, packed", "sdpa, padded", "eager, packed", "eager, padded"):
        assert float(cases[name].rsplit(" ", 1)[1]) < 1e-4
    assert rows(tmp_path, "tofu")[0]["note"] == "skipped: --model_name_or_path names no model"
    before = (tmp_path / "checks" / "attention.json").stat().st_mtime_ns
    assert checks(tmp_path, *words).returncode == 0
    assert (tmp_path / "checks" / "attention.json").stat().st_mtime_ns == before
    assert (tmp_path / "checks" / "table.md").read_text().count("| attention |") == len(cases)


def test_no_gpu_is_told(tmp_path: Path) -> None:
    found = checks(tmp_path)
    assert found.returncode == 2
    assert "--device: there is no GPU; --device cpu runs every part on tiny shapes." in found.stderr
