"""What a fresh clone relies on: metadata, tested versions, and the two commands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import unlearn_hf

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Large and rarely used; whoever installs them takes the newest.
UNPINNED_EXTRAS = {"lm-eval", "liger", "vllm"}


def package_name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower()


def test_every_dependency_has_a_tested_version() -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = {package_name(line): line for line in lines if line}
    extras = PROJECT["optional-dependencies"]
    needed = [*PROJECT["dependencies"]]
    for extra, requirements in extras.items():
        if extra not in UNPINNED_EXTRAS:
            needed += [each for each in requirements if package_name(each) != PROJECT["name"]]
    missing = {package_name(each) for each in needed} - set(pinned)
    assert not missing
    assert all("==" in line for line in pinned.values())


def test_metadata() -> None:
    assert PROJECT["scripts"] == {"unlearn-hf": "unlearn_hf.cli.main:main"}
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert (ROOT / PROJECT["readme"]).is_file()
    assert (ROOT / "unlearn_hf" / "py.typed").is_file()
    assert re.fullmatch(r"\d+\.\d+\.\d+", unlearn_hf.__version__)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (unlearn_hf.__version__, PROJECT["license"])
    assert f"## {unlearn_hf.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_two_commands_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "test-slow", "test-wheel", "test-lowest", "lint", "format", "install"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o100
    assert "make test" in script.read_text()


def test_no_test_module_imports_another() -> None:
    """What several of them need stands in a conftest or a helper."""
    tests = Path(__file__).parent
    pattern = re.compile(
        r"^\s*(from|import) +[\w.]*\btest_\w+|^\s*from +tests[\w.]* +import .*\btest_\w+", re.MULTILINE
    )
    found = {str(path.relative_to(tests)) for path in tests.rglob("*.py") if pattern.search(path.read_text())}
    assert not found
