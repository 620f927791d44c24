"""Peak memory of every method, each in a process of its own, relative to the usual way (`bench_plain.py`).

`tensors` is the peak of what all tensors hold together: parameters, gradients, optimizer, activations (on the CPU
counted by torch's profiler, exact and the same in every run; on a GPU `max_memory_allocated`). `resident` is the peak
size of the process on the CPU (`ru_maxrss`): with imports, and with what the allocator of the C library keeps.
`estimate` is what `unlearn-hf unlearn --dry_run` would say of the tensors, without running anything.

    python scripts/bench_memory.py --model_name_or_path DIR --tofu_folder DIR --steps 2
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench_runs import BASES, VARIANTS, add_arguments, load, make_trainer
from tqdm import tqdm

from unlearn_hf.training.memory_estimate import estimate_memory
from unlearn_hf.training.unlearning import UnlearningTrainer


def tensors_mib(variant: str, loaded: Any, arguments: argparse.Namespace, folder: str) -> float:
    """Train, and return the peak of what tensors hold."""
    if torch.cuda.is_available():
        make_trainer(variant, loaded, arguments, folder, []).train()
        return torch.cuda.max_memory_allocated() / 2**20
    held = sum(parameter.numel() * parameter.element_size() for parameter in loaded[0].parameters())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        make_trainer(variant, loaded, arguments, folder, []).train()
    trace = Path(folder) / "trace.json"
    profile.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    return (held + max(each["args"]["Total Allocated"] for each in events if each["name"] == "[memory]")) / 2**20


def estimate_mib(variant: str, loaded: Any, arguments: argparse.Namespace, folder: str) -> float:
    """What tensors should hold, by shapes alone; NaN for variants that are not of the library."""
    trainer = make_trainer(variant, loaded, arguments, folder, [])
    if not isinstance(trainer, UnlearningTrainer):
        return float("nan")
    sets = {name: list(trainer.train_dataset.sets[name]) for name in ("forget", "retain")}
    return estimate_memory(trainer.model, trainer.args, sets, arguments.steps + 1, type(trainer)).total / 2**20


def run(variant: str, what: str) -> float:
    """Measure in a process of its own."""
    command = [sys.executable, *sys.argv, "--only", variant, what]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = re.search(r"^peak (\S+)$", lines, re.MULTILINE)
    assert found is not None
    return float(found[1])


def main() -> None:
    """Start processes for every variant and print the table; in such a process, train and print the peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    default = ["plain graddiff", "plain npo", "plain ngdiff", "graddiff", "npo", "ngdiff", "eupmu", "eupmu fast"]
    parser.add_argument("--variants", nargs="+", default=default, choices=list(VARIANTS))
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        variant, what = arguments.only
        loaded = load(arguments)
        with tempfile.TemporaryDirectory() as folder:
            if what == "tensors":
                peak = tensors_mib(variant, loaded, arguments, folder)
            elif what == "estimate":
                peak = estimate_mib(variant, loaded, arguments, folder)
            else:
                make_trainer(variant, loaded, arguments, folder, []).train()
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"\npeak {peak}")
        return
    measures = ("tensors", "resident", "estimate")
    table: list[dict[str, Any]] = [
        {"variant": variant, **{what: run(variant, what) for what in measures}}
        for variant in tqdm(arguments.variants, desc="peak memory")
    ]
    peaks = {row["variant"]: row for row in table}
    print(f"{'method':<21}" + "".join(f"{what + ' MiB':>14}{'ratio':>8}" for what in measures))
    for row in table:
        base = peaks.get(BASES.get(row["variant"], "plain graddiff"), table[0])
        row |= {f"{what}_ratio": row[what] / base[what] for what in measures}
        print(
            f"{row['variant']:<21}" + "".join(f"{row[what]:>14.0f}{row[f'{what}_ratio']:>8.2f}" for what in measures)
        )
    if arguments.output_file:
        Path(arguments.output_file).write_text(json.dumps({"arguments": vars(arguments), "results": table}, indent=1))


if __name__ == "__main__":
    main()
