"""Optional dependencies."""

from __future__ import annotations

import importlib.util


def require(module: str, extra: str, purpose: str) -> None:
    """Raise unless `module` is installed.

    Raises:
        ImportError: naming what needs it, and how to install it.
    """
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{purpose} needs {module}; install it with `pip install 'unlearn-hf[{extra}]'`.")
