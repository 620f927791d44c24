"""Metrics for people: the main ones, one a line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unlearn_hf.common.files import read_json
from unlearn_hf.evaluation import RESULT_FILE
from unlearn_hf.evaluation.metrics.catalog import VARIANT_SUFFIXES, is_metric

_BESIDE_RETAIN_MODEL = (
    "forget_prob",
    "forget_rouge",
    "forget_extraction_strength",
    "retain_prob",
    "retain_rouge",
)


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


def print_retain_model(named: str | None, folder: Path) -> None:
    """Print what the retain model has beside what was found in `folder`, where both are result files of ours.

    Args:
        named: its run folder or result file; `None` prints nothing.
        folder: with a result file.
    """
    if named is None:
        return
    theirs, mine = _values(Path(named)), _values(folder)
    if shared := [name for name in _BESIDE_RETAIN_MODEL if name in theirs and name in mine]:
        shown = ", ".join(f"{name} {theirs[name]:.3f} (here {mine[name]:.3f})" for name in shared)
        print(f"the retain model ({Path(named)}) has {shown}")


def _values(path: Path) -> dict[str, float]:
    file = path / RESULT_FILE if path.is_dir() else path
    content = read_json(file) if file.name == RESULT_FILE and file.is_file() else {}
    return {metric["name"]: metric["value"] for metric in content.get("metrics", [])}
