"""Versions of what numbers depend on."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from unlearn_hf.version import __version__

_PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "datasets",
    "evaluate",
    "tokenizers",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "rouge-score",
)


def versions() -> dict[str, str]:
    """Versions of Python, of this library and of what it computes with."""
    found = {"python": platform.python_version(), "unlearn_hf": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def code_commit() -> str | None:
    """Commit of the checkout this library runs from (with `+changes` if it has any), `None` for an installed one."""

    def git(*words: str) -> str | None:
        folder = Path(__file__).parents[1]
        try:
            done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # An installed package may lie inside some other project's checkout, in its environment.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    changes = git("status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{commit}+changes" if commit and changes else commit
