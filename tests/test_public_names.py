"""The package's public surface, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import unlearn_hf

HEAVY = ("torch", "transformers", "datasets", "pandas", "scipy")
MODEL_CODE = (
    *(f"unlearn_hf.{room}" for room in ("models", "likelihood", "objectives", "evaluation", "training", "methods")),
    *(f"transformers.{module}" for module in ("models.", "modeling_utils", "trainer")),
    "peft",
    "accelerate",
)


@pytest.mark.parametrize("name", unlearn_hf.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(unlearn_hf, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = unlearn_hf.Nonsense


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("unlearn_hf", HEAVY), ("unlearn_hf.cli.main", HEAVY), ("unlearn_hf.data", MODEL_CODE)],
)
def test_imports_load_no_more_than_they_need(module: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name.startswith({unwanted})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
