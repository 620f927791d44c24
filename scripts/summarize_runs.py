"""One table of several run folders: what was forgotten, what was kept, how long it took.

python scripts/summarize_runs.py --reference runs/retain_only runs/target runs/npo
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

from unlearn_hf.benchmarks.from_logs import recompute

COLUMNS = {
    "forget Prob": "forget_prob",
    "forget ROUGE": "forget_rouge",
    "truth ratio": "forget_truth_ratio",
    "forget quality": "forget_quality",
    "retain Prob": "retain_prob",
    "model utility": "model_utility",
}


def processor() -> str:
    """Name of the processor, where the system tells."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def row_of(folder: Path, reference: Path | None) -> list[str]:
    """Cells of one run."""
    values = recompute(folder, reference)
    cells = [folder.name]
    for name in COLUMNS.values():
        value = values.get(name)
        cells.append("" if value is None else f"{value:.2g}" if name == "forget_quality" else f"{value:.3f}")
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    seconds = record.get("seconds", {})
    return [*cells, f"{seconds.get('training', 0):.0f}", f"{seconds.get('evaluation', 0):.0f}"]


def main() -> None:
    """Print the table, and write it with `--output_file`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--reference", type=Path, help="run of the retain-only model, for forget quality")
    parser.add_argument("--output_file", type=Path)
    arguments = parser.parse_args()
    header = ["model", *COLUMNS, "training s", "evaluation s"]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(row_of(folder, arguments.reference)) + " |" for folder in arguments.runs]
    record = json.loads((arguments.runs[0] / "run.json").read_text())
    versions = record.get("versions", {})
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "peft") if name in versions)
    lines += ["", f"{processor()}; {packages}; commit {str(record.get('commit', 'unknown'))[:12]}"]
    print("\n".join(lines))
    if arguments.output_file:
        arguments.output_file.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
