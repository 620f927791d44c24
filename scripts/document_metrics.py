"""Write docs/metrics.md from the registries: `python scripts/document_metrics.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unlearn_hf.evaluation.attacks.base import ATTACKS
from unlearn_hf.evaluation.metrics.base import Metric, metric_unit
from unlearn_hf.evaluation.metrics.catalog import VARIANT_SUFFIXES, metrics

FILE = Path(__file__).parents[1] / "docs" / "metrics.md"
HEAD = """# Metrics and attacks

Written by `python scripts/document_metrics.py` from the registries; `unlearn-hf list metrics attacks` prints the same.
Every metric is an `evaluate.Metric` too: `unlearn_hf.load_metric("forget_prob").compute(predictions=[0.7, 1.2])`.
How far metrics can be trusted: [meta-evaluation](meta_evaluation.md). The `uds_*` composites are those published with
the Unlearning Depth Score; `published_composites` in `unlearn_hf.evaluation.metrics.composite` gives all of them from
their parts, the depth score and the full model's utility among them.
"""
DIRECTIONS: Mapping[bool | None, str] = {True: "higher", False: "lower", None: "near a retrained model's"}


def page() -> str:
    """The whole page."""
    lines = [HEAD, "| metric | what | better | formula | needs | version | source |", "|" + " --- |" * 7]
    for name, facts in metrics().items():
        unit = type(metric_unit(name))
        formula = "Mean" if unit is Metric else (unit.__doc__ or "").splitlines()[0].rstrip(".")
        cells = (f"`{name}`", facts.summary, DIRECTIONS[facts.higher_is_better], formula, facts.needs)
        shown = (cell.replace("|", r"\|") for cell in cells)
        lines.append(f"| {' | '.join(shown)} | {facts.version} | {facts.paper} |")
    suffixes = ", ".join(f"`{suffix}`" for suffix in VARIANT_SUFFIXES)
    lines += ["", f"A suffix names another definition than the default: {suffixes}.", "", "## Membership attacks", ""]
    lines += ["Scores are higher for texts that look less like members of the training set.", ""]
    lines += ["| attack | score | cost | version | source |", "|" + " --- |" * 5]
    for name, attack in ATTACKS.items():
        score = (type(attack).__doc__ or "").splitlines()[0].rstrip(".")
        lines.append(f"| `{name}` | {score} | {attack.cost} | {attack.version} | {attack.paper} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")
