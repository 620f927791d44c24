"""The report: one HTML page that needs no network, and its figures as files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from unlearn_hf.common.files import write_text
from unlearn_hf.report.answers import answered_rows
from unlearn_hf.report.comparison import differing_settings, frontier, metric_lines, settings_of_some
from unlearn_hf.report.intervals import bootstrap_intervals
from unlearn_hf.report.requests import request_chains
from unlearn_hf.report.runs import Run
from unlearn_hf.version import __version__

PAGE = "report.html"
FIGURES = "figures"
_HERE = Path(__file__).parent
_CAPTIONS = {
    "frontier": "Forgetting against utility. Up and right is better; the line joins runs that no other run beats in "
    "both.",
    "curves": "What was logged during training, by step.",
    "truth_ratio": "How the truth ratio of the forget rows is distributed. A model that never saw them is the "
    "retain-only one; forget quality tests whether two of these curves are the same.",
}
_PROVENANCE = ("versions", "commit", "machine", "seeds", "data", "started", "finished", "verb", "problem", "ended")


@dataclass
class Written:
    """What a report consists of.

    Attributes:
        page: the HTML file.
        figures: the pictures.
        problems: what could not be shown, a line each.
    """

    page: Path
    figures: list[Path]
    problems: list[str]


def write_report(
    runs: Sequence[Run],
    folder: Path,
    problems: Sequence[str] = (),
    *,
    forget_metric: str | None = None,
    utility_metric: str | None = None,
    max_answers: int = 500,
    title: str = "Unlearning runs",
) -> Written:
    """Write `report.html` and `figures/` into a folder.

    Args:
        runs: see `read_runs`.
        folder: made if absent.
        problems: what is wrong with the runs, a line each; the page shows them.
        forget_metric: the frontier's vertical axis; chosen by what the runs have.
        utility_metric: its horizontal axis, likewise.
        max_answers: most rows of answers in the page.
        title: heading.

    Raises:
        ValueError: if no run is left, or a metric that is named is in none of them.
    """
    if not runs:
        raise ValueError("runs: none of them can be read; name run folders or result files.")
    problems = list(problems)
    lines = metric_lines(runs)
    front = frontier(runs, lines, forget_metric, utility_metric)
    known = {id(run): list(run.notes) for run in runs}
    drawn = _draw(runs, front, folder / FIGURES, problems)
    problems += [note for run in runs for note in run.notes if note not in known[id(run)]]
    if front is not None:
        problems += [
            f"{runs[at].path}: not on the frontier, it has no comparable {front.utility.name} and "
            f"{front.forgetting.name}."
            for at in front.left_out
            if runs[at].values
        ]
    answers, all_answers = answered_rows(runs, max_answers)
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    page = _environment().get_template("page.html").render(
        title=title,
        version=__version__,
        runs=runs,
        lines=lines,
        intervals=[bootstrap_intervals(run.values, run.samples) for run in runs],
        settings=(settings := differing_settings(runs)),
        of_some=settings_of_some(runs, settings),
        chains=request_chains(runs),
        figures=[(name, _CAPTIONS[name], data) for name, data in drawn.items()],
        answers=answers,
        all_answers=all_answers,
        provenance=_PROVENANCE,
        problems=problems,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip
    write_text(folder / PAGE, page)
    pictures = [folder / FIGURES / f"{name}.{kind}" for name in drawn for kind in ("svg", "png")]
    return Written(folder / PAGE, pictures, problems)


def _draw(runs: Sequence[Run], front: Any, folder: Path, problems: list[str]) -> dict[str, str]:
    """Figure -> its SVG in base64."""
    from unlearn_hf.report.figures import draw, save

    try:
        figures = draw(runs, front)
    except ImportError as problem:
        problems.append(str(problem))
        return {}
    return {name: base64.b64encode(save(each, folder, name).encode()).decode() for name, each in figures.items()}


def _environment() -> Environment:
    # Everything is escaped, whatever the name of the template ends with; what a record lacks stays empty.
    found = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"number": _number, "duration": _duration, "words": _words, "folder": lambda run: Path(run).name}
    return found


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _duration(seconds: Any) -> str:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _words(value: Any) -> str:
    """A value for people: nested ones as `name: value`."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_words(each)}" for name, each in value.items())
    return ", ".join(map(_words, value)) if isinstance(value, list | tuple) else _number(value)
