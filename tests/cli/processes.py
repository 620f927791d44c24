"""The command line in processes of their own."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.context import ForkProcess
from pathlib import Path

from unlearn_hf.cli.main import main


class CommandLine(ForkProcess):
    """`unlearn-hf WORDS`, forked from this process, so that it need not import torch again.

    Args:
        words: the words of the command line.
        printed: a file for what it prints and warns of.
    """

    def __init__(self, words: list[str], printed: Path) -> None:
        super().__init__()
        self.words = words
        self.printed = printed
        self.start()

    def run(self) -> None:
        with self.printed.open("w") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a script
        sys.exit(main(self.words))

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.pid is not None
        os.kill(self.pid, number)

    def ended(self) -> str:
        """Wait for its end; what it printed."""
        self.join()
        return self.printed.read_text()
