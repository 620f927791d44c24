"""The figures of a report: frontier, curves of training, truth ratios. They need matplotlib (extra `plots`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from unlearn_hf.common.extras import require
from unlearn_hf.common.files import whole_file
from unlearn_hf.evaluation.metrics.truth_ratio import rows_truth_ratio
from unlearn_hf.evaluation.sample_table import split_rows
from unlearn_hf.report.comparison import Frontier, MetricLine
from unlearn_hf.report.runs import RETAIN_ONLY, RUN, TARGET, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008: told apart by the colour-blind.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A6A00", "#5D3A9B")
_ANCHORS = {TARGET: "#222222", RETAIN_ONLY: "#777777"}
_MARKERS = {TARGET: "*", RETAIN_ONLY: "D", RUN: "o"}
_CURVES = {
    "loss on forget": ("forget_loss",),
    "loss on retain": ("retain_loss",),
    "weights": ("forget_weight", "retain_weight"),
    "dual variable": ("dual_variable",),
    "learning rate": ("learning_rate",),
    "cosine of the two gradients": ("gradient_cosine",),
    "gradient norm": ("grad_norm",),
}
_STYLES = ("-", "--", ":")
_MOST_LEGEND = 12
_RATIO = "geometric"


def draw(runs: Sequence[Run], front: Frontier | None) -> dict[str, Figure]:
    """Every figure that the runs suffice for, by name.

    Raises:
        ImportError: without matplotlib.
    """
    require("matplotlib", "plots", "A report's figures")
    found = {
        "frontier": draw_frontier(runs, front) if front is not None else None,
        "curves": draw_curves(runs),
        "truth_ratio": draw_truth_ratios(runs),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write `name.svg` and `name.png` into a folder, and give the SVG back."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    with whole_file(folder / f"{name}.svg") as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")
    with whole_file(folder / f"{name}.png") as partial:
        figure.savefig(partial, dpi=150)
    return text.getvalue()


def color_of(runs: Sequence[Run], at: int) -> str:
    """The colour of a run, the same in all figures and in the page."""
    if runs[at].role in _ANCHORS:
        return _ANCHORS[runs[at].role]
    return COLORS[sum(run.role == RUN for run in runs[:at]) % len(COLORS)]


def label_of(run: Run) -> str:
    """A run's name for matplotlib, which takes dollars for formulas and hides names that begin with `_`."""
    name = run.name if len(run.name) <= 40 else run.name[:18] + "…" + run.name[-21:]
    label = name if run.role in (RUN, run.name) else f"{name} ({run.role})"
    return (" " + label if label.startswith("_") else label).replace("$", r"\$")


def draw_frontier(runs: Sequence[Run], front: Frontier) -> Figure:
    """Forgetting against utility; better is up and right, whatever the direction of the metrics."""
    figure, axes = _figure(7.2, 4.8)
    places = {at: (front.utility.values[at].value, front.forgetting.values[at].value) for at in front.points}
    corners = [places[at] for at in front.best]
    axes.plot(*zip(*corners, strict=True), color="#999999", linewidth=1.2, zorder=1) if len(corners) > 1 else None
    for at, place in places.items():
        role, color = runs[at].role, color_of(runs, at)
        size = 170 if role == TARGET else 60
        axes.scatter(*place, s=size, marker=_MARKERS[role], color=color, label=label_of(runs[at]), zorder=3)
    _direction(axes, "x", front.utility)
    _direction(axes, "y", front.forgetting)
    axes.margins(0.12)
    axes.grid(alpha=0.25)
    _legend(figure, *axes.get_legend_handles_labels())
    return figure


class Trial(Protocol):
    """What is drawn of a trial of a sweep."""

    @property
    def number(self) -> int:
        """Of the trial."""

    @property
    def leaking(self) -> int:
        """Rows that leak."""

    @property
    def forget_prob(self) -> float:
        """Probability of answers to forget."""

    @property
    def kept(self) -> float:
        """Probability of answers to keep, relative to before."""


def draw_trials(found: Sequence[Trial], front: Sequence[Trial], best: Trial | None, limit: float) -> Figure:
    """All trials by what they keep and what they forget; better is up and right.

    Args:
        found: all of them.
        front: those that no other one beats, by what they keep.
        best: the choice.
        limit: what it has to keep.

    Raises:
        ImportError: without matplotlib.
    """
    require("matplotlib", "plots", "The picture of a sweep")
    figure, axes = _figure(7.2, 4.8)
    axes.plot(*_positions(front), color="#999999", linewidth=1.2, zorder=1)
    beaten = [each for each in found if each not in front and each is not best]
    groups = (
        ("beaten by another trial", beaten, "#bbbbbb", "o"),
        ("frontier", [each for each in front if each is not best], COLORS[0], "o"),
        ("choice", [best] if best is not None else [], COLORS[1], "*"),
    )
    for label, group, color, marker in groups:
        if group:
            size = 170 if marker == "*" else 45
            axes.scatter(*_positions(group), s=size, c=color, marker=marker, label=label, zorder=3)
            for each in group if group is not beaten else ():
                axes.annotate(
                    f"{each.number}: {each.leaking} leak", (each.kept, each.forget_prob), xytext=(6, 5),
                    textcoords="offset points", fontsize=8,
                )  # fmt: skip
    axes.axvline(limit, color="#777777", linestyle="--", linewidth=1)
    axes.annotate(f"{limit}", (limit, 0.01), xycoords=("data", "axes fraction"), color="#777777", fontsize=8)
    if min(each.forget_prob for each in found) > 0:
        axes.set_yscale("log")
    axes.invert_yaxis()
    axes.margins(0.15)
    axes.grid(alpha=0.25)
    axes.set_xlabel("probability of answers to keep, relative to before (higher is better)")
    axes.set_ylabel("probability of answers to forget (up is less)")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _positions(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
    return [each.kept for each in trials], [each.forget_prob for each in trials]


def _direction(axes: Axes, which: str, line: MetricLine) -> None:
    higher = line.first.higher_is_better
    text = f"{line.name} ({'higher' if higher else 'lower'} is better{'' if higher else '; axis reversed'})"
    axes.set(**{f"{which}label": text})
    if not higher:
        axes.invert_xaxis() if which == "x" else axes.invert_yaxis()


def draw_curves(runs: Sequence[Run]) -> Figure | None:
    """What the trainer logged by step, a panel per quantity and a colour per run."""
    panels = [(title, names) for title, names in _CURVES.items() if any(_points(run, names) for run in runs)]
    if not panels:
        return None
    rows = (len(panels) + 1) // 2
    figure, grid = _figure(7.2, 2.3 * rows + 0.6, nrows=rows, ncols=2, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    drawn: dict[int, Any] = {}
    for axes, (title, names) in zip(grid.flat, panels, strict=False):
        for at, run in enumerate(runs):
            for name, points in _points(run, names).items():
                style = _STYLES[list(names).index(name) % len(_STYLES)] if title == "weights" else "-"
                few = {"marker": "."} if len(points[0]) < 3 else {}
                lines = axes.plot(*points, style, color=color_of(runs, at), linewidth=1.3, **few)
                drawn.setdefault(at, lines[0])
        axes.set_title(title + (": forget solid, retain dashed" if title == "weights" else ""), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.set_xlabel("step", fontsize=8)
    _legend(figure, list(drawn.values()), [label_of(runs[at]) for at in drawn])
    return figure


def _points(run: Run, names: Sequence[str]) -> dict[str, tuple[list[float], list[float]]]:
    """Name -> steps and finite values."""
    found = {}
    for name in names:
        pairs = [(line.get("step"), line[name]) for line in run.history if name in line]
        numbers = [pair for pair in pairs if all(isinstance(each, int | float) for each in pair)]
        if kept := [pair for pair in numbers if np.isfinite(pair[1])]:
            steps, values = zip(*kept, strict=True)
            found[name] = (list(steps), list(values))
    return found


def draw_truth_ratios(runs: Sequence[Run]) -> Figure | None:
    """Distributions of the forget rows' truth ratio; forget quality is the KS test between two of these."""
    ratios = {at: found for at, run in enumerate(runs) if (found := _ratios(run)) is not None}
    if not ratios:
        return None
    figure, axes = _figure(7.2, 4.2)
    for at, values in ratios.items():
        anchor = runs[at].role != RUN
        axes.ecdf(
            values, color=color_of(runs, at), label=label_of(runs[at]), linewidth=2 if anchor else 1.5,
            linestyle="--" if anchor else "-",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.axvline(1, color="#bbbbbb", linewidth=1)
    axes.set_xlabel("truth ratio R of forget rows: wrong answers over the right one (geometric); 1: equally likely")
    axes.set_ylabel("share of rows with at most R")
    axes.grid(alpha=0.25)
    _legend(figure, *axes.get_legend_handles_labels())
    return figure


def _ratios(run: Run) -> Any:
    if run.samples is None:
        return None
    rows = split_rows(run.samples, "forget")
    try:
        values = None if rows.empty else rows_truth_ratio(rows, _RATIO)
    except ValueError as problem:  # a diverged model
        run.notes.append(f"{run.path}: no truth ratios: {problem}")
        return None
    if values is None:
        return None
    finite = values[np.isfinite(values) & (values > 0)]
    return finite if finite.size else None


def _figure(width: float, height: float, **grid: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(**grid)


def _legend(figure: Figure, handles: list[Any], labels: list[str]) -> None:
    first = slice(_MOST_LEGEND)
    figure.legend(handles[first], labels[first], loc="outside lower center", ncols=2, fontsize=8, frameon=False)
