"""What `pip install` of the built wheel gives: all of the package, its data and configurations, usable anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    [path] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])
    return ZipFile(path)


def files(folder: str) -> set[str]:
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in found}


def test_everything_of_the_package_and_nothing_else_is_in_it(wheel: ZipFile) -> None:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == files("unlearn_hf") | {f"unlearn_hf/{name}" for name in files("configs")}
    assert {"unlearn_hf/py.typed", "unlearn_hf/data/mini/tofu/full.jsonl", "unlearn_hf/configs/mini/npo.yaml"} <= held
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_it_works_without_the_repository(wheel: ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    code = """
import unlearn_hf
from unlearn_hf.cli.verbs.unlearn import parse
print(unlearn_hf.__file__)
print(len(unlearn_hf.load_tofu("forget10", "mini")["full"]), len(unlearn_hf.load_muse("news", "mini")["forget"]))
print(parse(["--config", "configs/mini/npo.yaml", "--use_cpu", "true"]).training.beta)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    where = tmp_path / "site" / "unlearn_hf" / "__init__.py"
    assert done.stdout.splitlines() == [str(where), "400 20", "0.1"], done.stderr
