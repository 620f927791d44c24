"""The package's public surface."""

from __future__ import annotations

import subprocess
import sys

import pytest

import unlearn_hf


@pytest.mark.parametrize("name", unlearn_hf.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(unlearn_hf, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = unlearn_hf.Nonsense


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, unlearn_hf; print(sorted({'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
