"""Make a language model forget chosen data and keep the rest.

Public names are loaded on first use, so that `import unlearn_hf` and the command line's help stay instant. Which there
are, and where, stands in `__init__.pyi`, once for type checkers and for this file.
"""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from unlearn_hf.version import __version__ as __version__

_LISTED = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_HOMES = {name: module for module, name in re.findall(r"^from (\S+) import (\w+) as", _LISTED, re.MULTILINE)}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unlearn_hf' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
