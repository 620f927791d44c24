"""`unlearn-hf report`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn_hf.cli.parsing import ArgumentsError, read_arguments, split_named
from unlearn_hf.cli.run_folder import set_aside
from unlearn_hf.cli.verbs import Verb
from unlearn_hf.common.options import option

FILES = ("report.html", "figures")


@dataclass
class ReportArguments:
    """Report"""

    output_dir: str = option("report", "Where report.html and figures/ go.")
    overwrite: bool = option(False, "Set an older report in output_dir aside.")
    target: str | None = option(
        None, "Results of the model before unlearning. Default: those of the model the runs began with."
    )
    retain_only: str | None = option(
        None, "Results of the model that never saw the forget set. Default: retain_results of the runs."
    )
    forget_metric: str | None = option(None, "Metric on the frontier's vertical axis; chosen by what the runs have.")
    utility_metric: str | None = option(None, "Metric on the frontier's horizontal axis, likewise.")
    max_answers: int = option(500, "Most rows of answers in the page.")
    title: str = option("Unlearning runs", "Heading of the page.")

    def __post_init__(self) -> None:
        """Check values."""
        if self.max_answers < 0:
            raise ValueError(f"max_answers: {self.max_answers} is negative; 0 leaves answers out.")


ARGUMENTS = (ReportArguments,)


def run(argv: Sequence[str]) -> int:
    """Write the report of the runs that are named before the options."""
    named, options = split_named(argv)
    (arguments,) = read_arguments(ARGUMENTS, options)
    if not named:
        raise ArgumentsError(["runs: none is named; name run folders or result files before the options."])
    folder = Path(arguments.output_dir)
    _check_folder(folder, arguments.overwrite)
    return make_report([Path(word) for word in named], folder, arguments)


def _check_folder(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir: {str(folder)!r} is a file; name a folder.")
    if not overwrite and any((folder / name).exists() for name in FILES):
        raise ValueError(
            f"output_dir: {str(folder)!r} holds a report; --overwrite sets it aside, --output_dir names another."
        )


def make_report(paths: Sequence[Path], folder: Path, arguments: ReportArguments) -> int:
    """Read the runs, write the page, and say what was left out. Returns the exit status."""
    from unlearn_hf.report.page import write_report
    from unlearn_hf.report.runs import read_runs

    anchors = [None if each is None else Path(each) for each in (arguments.target, arguments.retain_only)]
    runs, problems = read_runs(paths, *anchors)
    if not runs:
        raise ArgumentsError(problems)
    if arguments.overwrite:
        set_aside(folder, "the old report is now in", FILES)
    written = write_report(
        runs,
        folder,
        problems,
        forget_metric=arguments.forget_metric,
        utility_metric=arguments.utility_metric,
        max_answers=arguments.max_answers,
        title=arguments.title,
    )
    for problem in written.problems:
        print(f"note: {problem}", file=sys.stderr)
    print(f"report: {written.page} ({len(runs)} models, {len(written.figures)} pictures)")
    return 0


VERB = Verb(
    run,
    "Compare runs and logs in one HTML page: metrics, frontier, curves, answers before and after.",
    examples=("unlearn-hf report runs/*", "unlearn-hf report runs/a runs/b --retain_only runs/retain"),
    arguments=ARGUMENTS,
    words="RUN ...",
)
