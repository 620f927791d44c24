"""Metrics for people: the main ones, one a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unlearn_hf.evaluation.metrics.catalog import VARIANT_SUFFIXES, is_metric


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
