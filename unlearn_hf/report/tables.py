"""Metrics for people: the main ones, one a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from unlearn_hf.common.files import read_json
from unlearn_hf.evaluation import RESULT_FILE
from unlearn_hf.evaluation.metrics.catalog import VARIANT_SUFFIXES, is_metric

_COMPARED = ("forget_prob", "forget_rouge", "extraction_strength", "retain_prob", "retain_rouge")


def is_variant(name: str) -> bool:
    """Whether a name is a metric under another definition than the default."""
    return not is_metric(name) and name.endswith(VARIANT_SUFFIXES)


def print_table(rows: Sequence[Sequence[str]], numbers: int = 0) -> None:
    """Print rows in columns as wide as they need; all but the first are right-aligned, `numbers` wide at least."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        shown = [
            f"{cell:>{max(width, numbers)}}" if numbers else f"{cell:<{width}}"
            for cell, width in zip(cells, widths[1:], strict=True)
        ]
        print("  ".join([f"{name:<{widths[0]}}", *shown]).rstrip())


def print_metrics(metrics: Mapping[str, float], where: str = "they are in the result file") -> None:
    """Print metrics; variants are only counted, and `where` says how to see them."""
    shown = {name: value for name, value in metrics.items() if not is_variant(name)}
    print_table([(name, f"{value:.4g}") for name, value in shown.items()])
    if len(shown) < len(metrics):
        print(f"({len(metrics) - len(shown)} more under other definitions; {where})")


def print_differences(before: Mapping[str, float], after: Mapping[str, float], names: tuple[str, str]) -> None:
    """Print the main metrics of two evaluations and their difference, and say where it is largest."""
    shared = [name for name in before if name in after and not is_variant(name)]
    changes = {name: after[name] - before[name] for name in shared}
    rows = [(name, f"{before[name]:.4g}", f"{after[name]:.4g}", f"{change:+.2g}") for name, change in changes.items()]
    print_table([("", *names, "difference"), *rows], numbers=10)
    if changes:
        largest = max(changes, key=lambda name: abs(changes[name]))
        print(f"largest difference: {largest}, {changes[largest]:+.3g}")


def print_retain_model(named: str | None, folder: Path) -> None:
    """Print what the retain model has beside what was found in `folder`, where both are result files of ours.

    Args:
        named: its run folder or result file; `None` prints nothing.
        folder: with a result file.
    """
    if named is None:
        return
    theirs, mine = _values(Path(named)), _values(folder)
    if shared := [name for name in _COMPARED if name in theirs and name in mine]:
        shown = ", ".join(f"{name} {theirs[name]:.3f} (here {mine[name]:.3f})" for name in shared)
        print(f"the retain model ({Path(named)}) has {shown}")


def _values(path: Path) -> dict[str, float]:
    file = path / RESULT_FILE if path.is_dir() else path
    content = read_json(file) if file.name == RESULT_FILE and file.is_file() else {}
    return {metric["name"]: metric["value"] for metric in content.get("metrics", [])}
