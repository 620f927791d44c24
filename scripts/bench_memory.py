"""Peak memory of every method, each in a process of its own, relative to the usual way (`bench_plain.py`).

On the CPU the peak resident size of the process (`ru_maxrss`), all included; on a GPU `max_memory_allocated`. The row
`imports and model` is what is there before a trainer is made.

    python scripts/bench_memory.py --model_name_or_path DIR --tofu_folder DIR --steps 2
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from bench_runs import BASES, VARIANTS, add_arguments, load, make_trainer

NOTHING = "imports and model"


def peak_mib() -> float:
    """Peak of this process so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Start a process per variant and print the table; in such a process, train and print the peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    default = ["plain graddiff", "plain npo", "plain ngdiff", "graddiff", "npo", "ngdiff", "eupmu", "eupmu fast"]
    parser.add_argument("--variants", nargs="+", default=default, choices=list(VARIANTS))
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        loaded = load(arguments)
        if arguments.only != NOTHING:
            with tempfile.TemporaryDirectory() as folder:
                make_trainer(arguments.only, loaded, arguments, folder, []).train()
        print(f"peak {peak_mib()}")
        return
    peaks: dict[str, float] = {}
    for variant in (NOTHING, *arguments.variants):
        command = [sys.executable, *sys.argv, "--only", variant]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        peaks[variant] = float(next(line for line in lines if line.startswith("peak ")).split()[1])
    print(f"{'method':<21}{'peak MiB':>10}{'ratio':>8}{'above model':>13}{'ratio':>8}")
    table = []
    for variant, peak in peaks.items():
        base = peaks.get(BASES.get(variant, "plain graddiff"), peaks[arguments.variants[0]])
        above, base_above = peak - peaks[NOTHING], base - peaks[NOTHING]
        print(f"{variant:<21}{peak:>10.0f}{peak / base:>8.2f}{above:>13.0f}{above / base_above:>8.2f}")
        table.append({"variant": variant, "peak_mib": peak, "ratio": peak / base, "ratio_above": above / base_above})
    if arguments.output_file:
        Path(arguments.output_file).write_text(json.dumps({"arguments": vars(arguments), "results": table}, indent=1))


if __name__ == "__main__":
    main()
