"""How the time of a step grows with sequence length, batch, vocabulary and model: the usual way and ours.

Random Llamas and random rows; one quantity is varied at a time, the others stay as given. Every point is a run of
`bench_step.py`'s kind, both variants in turn.

    python scripts/bench_curves.py --rounds 2 --steps 3 --output_file curves.json --chart_file curves.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench_runs import VARIANTS, add_arguments, load
from bench_step import measure

FACTORS: dict[str, tuple[str, tuple[float, ...]]] = {
    "longer": ("length of texts / that of TOFU", (0.5, 1, 2, 4)),
    "batch_size": ("rows of each set", (0.25, 0.5, 1, 2)),
    "vocabulary": ("size of the vocabulary", (0.25, 1, 4, 8)),
    "layers": ("layers", (0.5, 1, 2, 4)),
}


BUFFERS = {"graddiff": 1, "ngdiff": 2, "gru": 3}
"""Gradients, and copies of their size, that a method holds: what its choice costs by itself."""


def draw(curves: list[dict[str, Any]], path: str) -> None:
    """One panel per quantity, and one of methods that hold more or less."""
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 3, figsize=(9.3, 5.4), layout="constrained")
    panels = list(grid.flat)[: len(FACTORS) + 1]
    grid.flat[-1].set_axis_off()
    seconds = [value for point in curves if point["quantity"] in FACTORS for value in point["median"].values()]
    lowest, highest = 0.8 * min(seconds), 1.2 * max(seconds)
    ticks = [digit * 10.0**power for power in range(-4, 4) for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if lowest <= tick <= highest]
    for axes, (quantity, (label, _)) in zip(panels, FACTORS.items(), strict=False):
        points = [point for point in curves if point["quantity"] == quantity]
        for variant in points[0]["median"]:
            colour = "0.5" if variant.startswith("plain") else None
            medians = [point["median"][variant] for point in points]
            axes.plot([point["value"] for point in points], medians, marker="o", color=colour, label=variant)
        axes.set_xscale("log")
        axes.set_yscale("log")
        values = [point["value"] for point in points]
        axes.set_xticks(values, [f"{value / 1000:g}k" if value >= 1000 else f"{value:g}" for value in values])
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_ylim(lowest, highest)
        axes.minorticks_off()
        axes.set_xlabel(label)
        axes.set_ylabel("seconds per step")
        axes.spines[["top", "right"]].set_visible(False)
    held = {
        name: value for point in curves if point["quantity"] == "buffers" for name, value in point["median"].items()
    }
    panels[-1].bar([f"{name}\n{BUFFERS[name]}" for name in held], list(held.values()), color="tab:blue", width=0.6)
    panels[-1].set_xlabel("buffers of a gradient's size")
    panels[-1].spines[["top", "right"]].set_visible(False)
    panels[-1].set_ylabel("seconds per step")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure every point and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--variants", nargs="+", default=["plain npo", "npo"], choices=list(VARIANTS))
    parser.add_argument("--processor_time", action="store_true", help="compare processor time (on a shared machine)")
    parser.add_argument("--chart_file", help="draw the curves (PNG)")
    arguments = parser.parse_args()
    curves: list[dict[str, Any]] = []
    for quantity, (_, factors) in FACTORS.items():
        for factor in factors:
            usual = getattr(arguments, quantity)
            value = usual * factor if quantity == "longer" else max(1, int(usual * factor))
            changed = argparse.Namespace(**{**vars(arguments), quantity: value})
            rows = measure(changed, load(changed))
            curves.append(
                {"quantity": quantity, "value": value, "median": {row["variant"]: row["median"] for row in rows}}
            )
    changed = argparse.Namespace(**{**vars(arguments), "variants": list(BUFFERS)})
    for row in measure(changed, load(changed)):
        held = BUFFERS[row["variant"]]
        curves.append({"quantity": "buffers", "value": held, "median": {row["variant"]: row["median"]}})
    print(f"\n{'quantity':<12}{'value':>9}  seconds per step")
    for point in curves:
        seconds = "".join(f"{name:>16}{value:>9.3f}" for name, value in point["median"].items())
        print(f"{point['quantity']:<12}{point['value']:>9g}  {seconds}")
    if arguments.output_file:
        Path(arguments.output_file).write_text(json.dumps({"arguments": vars(arguments), "results": curves}, indent=1))
    if arguments.chart_file:
        draw(curves, arguments.chart_file)


if __name__ == "__main__":
    main()
