"""Seconds per optimizer step of every method, relative to the same mathematics written the usual way.

The usual way is `bench_plain.py`. All runs happen in one process, in turn, round after round; medians over the steps
of all rounds are printed, and written as JSON with `--output_file` and as a bar chart with `--chart_file`.
`fine-tuning` takes as many rows per step as a method takes of both sets. References are measured once before the first
step and are in no step's time.

    python scripts/bench_step.py
    python scripts/bench_step.py --model_name_or_path DIR --tofu_folder DIR --rounds 3 --chart_file steps.png
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench_runs import BASES, VARIANTS, StepTimer, add_arguments, load, make_trainer, memory, reset_peak


def measure(arguments: argparse.Namespace, loaded: Any) -> list[dict[str, Any]]:
    """Run every variant in turn; one row of measurements each."""
    model = loaded[0]
    initial = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    rows: dict[str, dict[str, Any]] = {
        name: {"variant": name, "seconds": [], "processor_seconds": [], "peak_mib": []} for name in arguments.variants
    }
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for variant, row in rows.items():
                with torch.no_grad():
                    for name, parameter in model.named_parameters():
                        parameter.copy_(initial[name])
                        parameter.grad = None
                timer = StepTimer()
                reset_peak()
                held = memory("VmRSS")
                trainer = make_trainer(variant, loaded, arguments, folder, [timer])
                trainer.train()
                row["peak_mib"].append(memory("VmHWM") - held)
                row["seconds"] += timer.seconds
                row["processor_seconds"] += timer.processor_seconds
                del trainer
    clock = "processor_seconds" if arguments.processor_time else "seconds"
    for row in rows.values():
        row["median"] = statistics.median(row[clock])
        row["quartiles"] = statistics.quantiles(row[clock], n=4)
    for name, row in rows.items():
        base = BASES.get(name, "plain graddiff")
        row["base"] = base if base in rows else arguments.variants[0]
        row["ratio"] = row["median"] / rows[row["base"]]["median"]
        row["peak_ratio"] = statistics.median(row["peak_mib"]) / statistics.median(rows[row["base"]]["peak_mib"])
    return list(rows.values())


def draw(rows: list[dict[str, Any]], path: str) -> None:
    """Bars of the ratios, those of the usual way in grey."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.36 * len(rows) + 1.2), layout="constrained")
    names = [row["variant"] for row in rows]
    colours = ["0.65" if name.startswith(("plain", "fine")) else "tab:blue" for name in names]
    low = [max(0.0, row["ratio"] * (1 - row["quartiles"][0] / row["median"])) for row in rows]
    high = [max(0.0, row["ratio"] * (row["quartiles"][2] / row["median"] - 1)) for row in rows]
    bars = axes.barh(names, [row["ratio"] for row in rows], xerr=[low, high], color=colours, ecolor="0.3")
    axes.bar_label(bars, labels=[f"{row['ratio']:.2f}" for row in rows], padding=14, fontsize=9)
    axes.axvline(1, color="0.3", linewidth=0.8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("time per optimizer step / usual way (NPO: plain npo; others: plain graddiff)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--processor_time", action="store_true", help="compare processor time (on a shared machine)")
    parser.add_argument("--chart_file", help="draw the ratios (PNG)")
    arguments = parser.parse_args()
    rows = measure(arguments, load(arguments))
    print(f"\n{'method':<21}{'s/step':>9}{'ratio':>8}{'quartiles':>18}{'peak MiB':>11}{'ratio':>8}  compared with")
    for row in rows:
        quartiles = f"{row['quartiles'][0]:.3f}..{row['quartiles'][2]:.3f}"
        print(
            f"{row['variant']:<21}{row['median']:>9.3f}{row['ratio']:>8.2f}{quartiles:>18}"
            f"{statistics.median(row['peak_mib']):>11.0f}{row['peak_ratio']:>8.2f}  {row['base']}"
        )
    if arguments.output_file:
        Path(arguments.output_file).write_text(json.dumps({"arguments": vars(arguments), "results": rows}, indent=1))
    if arguments.chart_file:
        draw(rows, arguments.chart_file)


if __name__ == "__main__":
    main()
