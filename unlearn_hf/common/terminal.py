"""Lines as wide as the terminal that shows them."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TextIO


def wrapped(text: str, indent: str = "  ", stream: TextIO | None = None) -> str:
    """A sentence in lines that fit the terminal, those after the first indented; as it is where nothing shows it."""
    if not (stream or sys.stdout).isatty():
        return text
    return textwrap.fill(text, shutil.get_terminal_size().columns, subsequent_indent=indent)
