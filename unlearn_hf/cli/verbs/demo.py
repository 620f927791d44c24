"""`unlearn-hf demo`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn_hf.cli.parsing import read_arguments
from unlearn_hf.cli.run_folder import check_run_folder, set_aside
from unlearn_hf.cli.verbs import Verb
from unlearn_hf.common.locks import hold_folder
from unlearn_hf.common.options import option


@dataclass
class DemoArguments:
    """Where the demonstration goes"""

    output_dir: str = option("runs/demo", "Folder for models, results, plot and summary.json.")
    overwrite: bool = option(False, "Begin afresh; the old folder is kept beside it as NAME.backup-1, -2, ...")


ARGUMENTS = (DemoArguments,)


def run(argv: Sequence[str]) -> int:
    """Show the whole story on the bundled data."""
    (arguments,) = read_arguments(ARGUMENTS, argv)
    folder = Path(arguments.output_dir)
    check_run_folder(folder, arguments.overwrite, resume=False)
    hold_folder(folder)
    set_aside(folder, "the old run folder is now")
    from unlearn_hf.cli.demo import run_demo

    run_demo(folder)
    return 0


VERB = Verb(
    run,
    "Teach a small model invented authors, make it forget some, and compare: offline, on a CPU, in minutes.",
    examples=("unlearn-hf demo", "unlearn-hf demo --output_dir runs/again"),
    arguments=ARGUMENTS,
)
