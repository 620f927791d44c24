"""The command line: `unlearn-hf VERB --name value ...`.

Help must be instant, so nothing here imports torch; the verbs do, when they run.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from unlearn_hf.cli.help import verb_help
from unlearn_hf.cli.verbs import VERBS
from unlearn_hf.cli.warnings_shown import readable_warnings
from unlearn_hf.common.locks import release_all
from unlearn_hf.common.terminal import is_main_process
from unlearn_hf.version import __version__

BAD_INPUT = 2
INTERRUPTED = 130
_PACKAGE = str(Path(__file__).parents[1])


def overview() -> str:
    """What `unlearn-hf --help` prints."""
    lines = [
        "usage: unlearn-hf VERB [--config FILE ...] [--name value ...]",
        "",
        "Make a language model forget chosen data and keep the rest.",
        "",
        "verbs:",
        *(f"  {name:<10}{verb.summary}" for name, verb in VERBS.items()),
        "",
        "unlearn-hf VERB --help shows what a verb takes, unlearn-hf --version the version.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: the words after `unlearn-hf`; those of the process by default.

    Returns:
        The exit status: 0, 1 when a run diverged, 2 for bad input, 3 with `--fail_unless_forgotten` when rows still
        leak or could not be judged, 130 when interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"unlearn-hf {__version__}")
        return 0
    name, rest = words[0], words[1:]
    try:
        verb = VERBS.find(name)
        if {"-h", "--help", "--help_all", "--help-all"} & set(rest):
            print(verb_help(name, verb, rest))
            return 0
        with readable_warnings():
            return verb.run(rest)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as problem:
        if not _is_bad_input(problem):
            raise
        _tell(_error_text(str(problem)))
        return BAD_INPUT
    except KeyboardInterrupt as problem:
        _tell("; ".join(["interrupted", *map(str, problem.args)]))
        return INTERRUPTED
    finally:
        release_all()


def _is_bad_input(problem: Exception) -> bool:
    """Whether we raised it to tell the user something; anything else is a fault, and needs its traceback.

    A missing file is the user's, whoever noticed it.
    """
    if isinstance(problem, OSError):
        return True
    frames = traceback.extract_tb(problem.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_PACKAGE)


def _tell(text: str) -> None:
    if is_main_process():  # once, however many processes there are
        print(text, file=sys.stderr)


def _error_text(message: str) -> str:
    lines = message.splitlines() or ["unknown"]
    if len(lines) > 1:
        lines = [f"{len(lines)} problems", *(f"  {line}" for line in lines)]
    return "error: " + "\n".join(lines)
