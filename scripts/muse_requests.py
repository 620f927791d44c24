"""MUSE's scalability (C5) and sustainability (C6): what is left of utility as more is to be forgotten.

Scalability: forget sets of growing size, each unlearned from the target. Sustainability: four requests, each unlearned
from the model that the one before left (`--continue_from`: each run judges those before it again, docs/requests.md).
News only. Every run is an `unlearn-hf unlearn` with its own run folder; finished ones are kept, so a run that was
interrupted goes on where it stopped.

    python scripts/muse_requests.py --output_dir runs/muse_requests -- --config configs/muse/npo.yaml
    python scripts/muse_requests.py --mini --output_dir runs/muse_mini

What follows `--` goes to every `unlearn-hf unlearn`. With `--mini` a small target model is trained first on the news
that come with the library, offline, on a CPU, in minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDS = range(1, 5)
METRICS = {
    "knowmem_retain": "KnowMem retain (utility)",
    "knowmem_forget": "KnowMem forget",
    "verbmem_forget": "VerbMem",
}
MINI = ["--benchmark", "muse", "--source", "mini", "--max_length", "256", "--lr_scheduler_type", "constant",
        "--weight_decay", "0", "--save_strategy", "no", "--report_to", "none"]  # fmt: skip
MINI_TARGET = ["--num_train_epochs", "25", "--per_device_train_batch_size", "8", "--learning_rate", "2e-3",
               "--lr_scheduler_type", "cosine", "--warmup_steps", "0.1"]  # fmt: skip
MINI_UNLEARNING = ["--method", "npo", "--num_train_epochs", "8", "--per_device_train_batch_size", "4",
                   "--learning_rate", "2e-4"]  # fmt: skip


def run(folder: Path, verb: str, *words: str) -> Path:
    """Run `unlearn-hf` unless `folder` holds its results; returns the folder."""
    if (folder / "evaluation.json").is_file():
        print(f"{folder}: finished before")
        return folder
    if folder.exists():
        shutil.move(folder, folder.with_name(f"{folder.name}.interrupted"))
    command = [sys.executable, "-m", "unlearn_hf", verb, *words, "--output_dir", str(folder)]
    print("==", " ".join(command), flush=True)
    subprocess.run(command, check=True)
    return folder


def mini_target(folder: Path) -> Path:
    """Train a tokenizer and a small Llama on the mini news; returns the target's folder."""
    from unlearn_hf.benchmarks.muse.data import load_muse
    from unlearn_hf.cli.demo import DemoSettings, new_model, train_tokenizer

    fresh = folder / "fresh"
    if not (fresh / "config.json").is_file():
        data = load_muse("news", "mini")
        parts = [name for name in data if name.startswith("train_")]
        tokenizer = train_tokenizer([text for name in parts for text in data[name]["text"]], DemoSettings().vocabulary)
        new_model(tokenizer, DemoSettings()).save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
    return run(folder / "target", "finetune", "--model_name_or_path", str(fresh), *MINI, *MINI_TARGET)


def metrics_of(folder: Path) -> dict[str, float]:
    """Metrics of a run."""
    content: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return {metric["name"]: metric["value"] for metric in content["metrics"]}


def plot(curves: dict[str, list[dict[str, float]]], path: Path) -> None:
    """One panel per metric, one line per experiment, over the number of the fold; 0 is the target."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(METRICS), figsize=(12, 3.6), sharey=True, layout="constrained")
    for panel, (metric, title) in zip(panels, METRICS.items(), strict=True):
        for (name, values), marker in zip(curves.items(), "os", strict=False):
            panel.plot(range(len(values)), [value[metric] for value in values], marker=marker, label=name)
        panel.set(title=title, xlabel="folds to forget, at once or one by one", xticks=range(len(FOLDS) + 1))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ROUGE-L F1 x 100")
    panels[0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is missing, and write `curves.json` and `curves.png`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--target", type=Path, help="evaluated run folder of the target; unlearned from, and point 0")
    parser.add_argument("--mini", action="store_true", help="train a small target on the mini news first")
    parser.add_argument("--experiments", nargs="+", default=["scalability", "sustainability"],
                        choices=["scalability", "sustainability"])  # fmt: skip
    parser.add_argument("words", nargs="*", help="after --: options of every `unlearn-hf unlearn`")
    arguments = parser.parse_args()
    folder: Path = arguments.output_dir
    words = [*MINI, *MINI_UNLEARNING, *arguments.words] if arguments.mini else arguments.words
    target = mini_target(folder) if arguments.mini else arguments.target
    curves: dict[str, list[dict[str, float]]] = {}
    for experiment in arguments.experiments:
        values = [metrics_of(target)] if target is not None else []
        model = target
        for fold in FOLDS:
            option = "--model_name_or_path" if model == target else "--continue_from"
            source = [] if model is None else [option, str(model)]
            part = f"{'scal' if experiment == 'scalability' else 'sust'}_forget_{fold}"
            finished = run(folder / part, "unlearn", *words, *source, "--forget_part", part)
            values.append(metrics_of(finished))
            if experiment == "sustainability":
                model = finished
        curves[experiment] = values
    (folder / "curves.json").write_text(json.dumps(curves, indent=1) + "\n")
    plot(curves, folder / "curves.png")
    for experiment, values in curves.items():
        for metric in METRICS:
            print(f"{experiment:16}{metric:18}" + "  ".join(f"{value[metric]:6.1f}" for value in values))
    print(folder / "curves.png")


if __name__ == "__main__":
    main()
