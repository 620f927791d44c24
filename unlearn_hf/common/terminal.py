"""What people read while something runs: lines as wide as their terminal, once however many processes there are."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TextIO


def is_main_process() -> bool:
    """Whether this process is the first of those that were launched together, as far as its environment tells."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    """Print a line in the main process."""
    if is_main_process():
        print(line, flush=True)


def wrapped(text: str, indent: str = "  ", stream: TextIO | None = None) -> str:
    """A sentence in lines that fit the terminal, those after the first indented; as it is where nothing shows it."""
    if not (stream or sys.stdout).isatty():
        return text
    return textwrap.fill(text, shutil.get_terminal_size().columns, subsequent_indent=indent)


def readable_size(count: float) -> str:
    """Bytes in the largest unit of which there is one."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
