"""Metrics for people: the main ones, one a line."""

from __future__ import annotations

from collections.abc import Mapping

from unlearn_hf.evaluation.metrics.catalog import VARIANT_SUFFIXES, is_metric


def is_variant(name: str) -> bool:
    """Whether a name is a metric under another definition than the default."""
    return not is_metric(name) and name.endswith(VARIANT_SUFFIXES)


def print_metrics(metrics: Mapping[str, float], where: str = "they are in the result file") -> None:
    """Print metrics; variants are only counted, and `where` says how to see them."""
    shown = {name: value for name, value in metrics.items() if not is_variant(name)}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        print(f"{name:<{width}}  {value:.4g}")
    if len(shown) < len(metrics):
        print(f"({len(metrics) - len(shown)} more under other definitions; {where})")


def print_differences(before: Mapping[str, float], after: Mapping[str, float], names: tuple[str, str]) -> None:
    """Print the main metrics of two evaluations and their difference, and say where it is largest."""
    shared = [name for name in before if name in after and not is_variant(name)]
    width = max((len(name) for name in shared), default=0)
    print(f"{'':<{width}}  {names[0]:>10}  {names[1]:>10}  difference")
    for name in shared:
        print(f"{name:<{width}}  {before[name]:>10.4g}  {after[name]:>10.4g}  {after[name] - before[name]:>+10.2g}")
    if shared:
        largest = max(shared, key=lambda name: abs(after[name] - before[name]))
        print(f"largest difference: {largest}, {after[largest] - before[largest]:+.3g}")
