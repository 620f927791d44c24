"""README and docs: commands parse, files and links are there, pages are up to date."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import unlearn_hf
from tests.conftest import load_script
from tests.pages import PAGES, README, ROOT, check_command, commands, relative
from unlearn_hf.methods import METHODS

COMMANDS = [(path, command) for path in PAGES for command in commands(path)]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[f"{relative(path)}: {line}" for path, line in COMMANDS])
def test_command_parses(path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check_command(command)


def test_a_wrong_command_does_not() -> None:
    for wrong in (
        "unlearn-hf unlearn --method npo --learning_rat 1",
        "unlearn-hf lst",
        "make coffee",
        "python no.py x",
    ):
        with pytest.raises((ValueError, AssertionError, OSError)):
            check_command(wrong)


def test_the_readme_is_short_and_shows_commands() -> None:
    assert len(README.read_text().splitlines()) <= 120
    assert {"make demo", "make test"} <= {shlex.join(shlex.split(line, comments=True)) for line in commands(README)}
    assert len(COMMANDS) > 12


def test_methods_are_documented_from_the_registry() -> None:
    script = load_script("document_methods")
    for file in script.FILES:
        assert script.filled(file.read_text()) == file.read_text(), "run python scripts/document_methods.py"
    page = (ROOT / "docs" / "methods.md").read_text()
    for name in METHODS:
        section = page.partition(f"## `{name}`\n")[2].partition("\n## ")[0]
        assert {"**When.**", "**Knobs.**"} <= set(re.findall(r"\*\*\w+\.\*\*", section)), (
            f"advice on {name} is missing"
        )


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_files_that_are_named_are_there(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for name in re.findall(r"\]\(([^)#:]+)[)#]", text):
        assert (path.parent / name).exists(), name
    for name in re.findall(r"`((?:unlearn_hf|scripts|configs|docs|tests|notebooks)/[\w./-]+)`", text):
        assert (ROOT / name).exists() or "NAME" in name or "X" in name, name


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed (extra docs): the site was NOT built")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    for page in (ROOT / "docs").rglob("*.md"):
        where = page.relative_to(ROOT / "docs").with_suffix("")
        folder = where.parent if where.name == "index" else where
        assert (tmp_path / "site" / folder / "index.html").is_file(), page
    shutil.rmtree(tmp_path / "site")


def test_the_changelog_begins_with_this_version() -> None:
    (first, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first == unlearn_hf.__version__
