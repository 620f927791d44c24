"""Every forget objective under fixed weights, NGDiff and EUPMU, over seeds, each at its own best learning rate.

    python scripts/study_objectives.py          # bundled mini data, three seeds, offline on a CPU, some ten minutes

Each objective under each method runs at every learning rate on the first seed, and at the chosen one on the others.
The choice does not see the retain-only model: of the rates that keep 95 % of Prob on retain rows that no unlearning
step was trained on, the one with the lowest Prob of the forget rows; where none keeps as much, the one that keeps
most, with a star in the table.

A finished run is a line of `results.jsonl`; started again, the script goes on where it was stopped. `table.md` and
`objectives.png` hold mean (least - most) over the seeds that are there, and are written again after every seed.
Two processes can share the folder, each with its `--objectives`, once the models of every seed are there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import pandas as pd
import torch
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, set_seed

from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator
from unlearn_hf.cli.demo import Demo, DemoSettings
from unlearn_hf.common.files import whole_file
from unlearn_hf.methods import METHODS
from unlearn_hf.objectives import FORGET_OBJECTIVES

METHOD_NAMES = ("graddiff", "ngdiff", "eupmu")
METRICS = ("forget_prob", "extraction_strength", "forget_quality", "model_utility", "retain_prob", "seconds")
ANCHORS = ("target", "retain_only")
KEPT = 0.95
# Where a default does not fit a model of three layers: RMU steers a layer in the middle, by the length it finds there.
OPTIONS: dict[str, dict[str, Any]] = {"rmu": {"layer": 1, "adaptive_steering": True}}
QUIET: dict[str, Any] = {"disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "report_to": "none"}
KEYS = ["objective", "method", "learning_rate", "seed"]


class Results:
    """Finished runs, one JSON line each; a line that a killed process left unfinished is dropped.

    Args:
        path: the file; its first line says with which settings the runs were made.
        settings: of this study.

    Raises:
        ValueError: if the file was made with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        if lines and json.loads(lines[0]) != settings:
            raise ValueError(f"output_dir: {path} was made with {lines[0]}, not {settings}; take another folder.")
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines[1:]]
        with whole_file(path) as partial:
            partial.write_text("".join(json.dumps(each) + "\n" for each in (settings, *self.rows)))

    def find(self, cell: dict[str, Any]) -> dict[str, Any] | None:
        """The finished run of this cell."""
        return next((row for row in self.rows if all(row[key] == cell[key] for key in KEYS)), None)

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Keep a finished run."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        return row


def choose_rate(rows: list[dict[str, Any]], retain_before: float) -> tuple[float, bool]:
    """The learning rate to take of runs that differ in it, and whether it keeps enough; see the module's docstring."""
    finite = [row for row in rows if row["retain_prob"] == row["retain_prob"]]
    if not finite:
        return min(row["learning_rate"] for row in rows), False
    keeping = [row for row in finite if row["retain_prob"] >= KEPT * retain_before]
    if keeping:
        return min(keeping, key=lambda row: row["forget_prob"])["learning_rate"], True
    return max(finite, key=lambda row: row["retain_prob"])["learning_rate"], False


class Study:
    """The models of one seed, and runs of unlearning from its target."""

    def __init__(self, folder: Path, seed: int, arguments: argparse.Namespace, results: Results) -> None:
        sizes = DemoSettings(seed=seed, hidden_size=arguments.hidden_size, layers=3, epochs=arguments.target_epochs)
        self.demo, self.seed, self.epochs, self.results = Demo(folder, sizes), seed, arguments.epochs, results
        evaluated = set(self.demo.data["retain_perturbed"]["question"])
        self.retain = self.demo.data["retain"].filter(lambda row: row["question"] not in evaluated)
        for name, corpus in zip(ANCHORS, ("full", "retain"), strict=True):
            if not (folder / name / "evaluation.json").exists():
                shutil.rmtree(folder / name, ignore_errors=True)
                self.demo.memorise(name, corpus)
        self.reference = folder / "retain_only"
        self.before = {name: self.anchor(name) for name in ANCHORS}["target"]

    def cell(self, objective: str, method: str, rate: float) -> dict[str, Any]:
        """What tells a run from all others."""
        return dict(zip(KEYS, (objective, method, rate, self.seed), strict=True))

    def evaluate(self, model: Any) -> dict[str, float]:
        """The table's metrics of a model, with forget quality against this seed's retain-only model."""
        evaluator = TofuEvaluator(self.demo.data, retain_results=self.reference, batch_size=64, max_new_tokens=16)
        found = evaluator(model, self.demo.tokenizer)
        return {name: found[name] for name in METRICS if name != "seconds"}

    def anchor(self, name: str) -> dict[str, Any]:
        """The target, or the retain-only model, under the same evaluation."""
        cell = self.cell(name, "", 0.0)
        model = AutoModelForCausalLM.from_pretrained(self.demo.folder / name).eval()
        return self.results.find(cell) or self.results.add(cell | self.evaluate(model) | {"seconds": 0.0})

    def unlearn(self, objective: str, method: str, rate: float) -> dict[str, Any]:
        """Unlearn and evaluate, or take the run that is there. Refused by the method: a row with the reason."""
        cell = self.cell(objective, method, rate)
        done = self.results.find(cell)
        if done is not None:
            return done
        set_seed(self.seed)
        options = {"num_train_epochs": self.epochs, "per_device_train_batch_size": 8, "weight_decay": 0.0}
        options |= {"lr_scheduler_type": "constant", "learning_rate": rate, "seed": self.seed, **QUIET}
        options |= {"forget_loss": objective, "use_cpu": True, **OPTIONS.get(objective, {})}
        with TemporaryDirectory() as folder:
            target = str(self.demo.folder / "target")
            try:
                config = METHODS[method].config_class(output_dir=folder, **options)
                trainer = METHODS[method](target, config, self.demo.data["forget"], self.retain)
            except ValueError as refusal:
                return self.results.add(cell | {"refused": str(refusal)})
            start = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - start
            return self.results.add(cell | self.evaluate(trainer.model) | {"seconds": seconds})


def chosen_rows(rows: list[dict[str, Any]], seed: int = 0) -> pd.DataFrame:
    """The rows of the chosen learning rates, of all seeds, with `kept`: whether the choice kept enough."""
    frame = pd.DataFrame(rows).drop_duplicates(KEYS)  # two processes that share a folder both judge the targets
    before = frame[(frame["objective"] == "target") & (frame["seed"] == seed)]["retain_prob"].item()
    if "refused" in frame:
        frame = frame[frame["refused"].isna()]
    parts = []
    for (objective, _), cell in frame.groupby(["objective", "method"], sort=False):
        kept = True
        if objective not in ANCHORS:
            rate, kept = choose_rate(cell[cell["seed"] == seed].to_dict("records"), before)
            cell = cell[cell["learning_rate"] == rate]
        parts.append(cell.assign(kept=kept))
    order = [*ANCHORS, *FORGET_OBJECTIVES]
    return pd.concat(sorted(parts, key=lambda part: order.index(part["objective"].iloc[0])))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean (least - most) over seeds; then what was refused, and why."""
    lines = ["| objective | method | learning rate | seeds | " + " | ".join(METRICS) + " |"]
    lines.append("|" + " --- |" * (4 + len(METRICS)))
    for (objective, method), cell in chosen_rows(rows).groupby(["objective", "method"], sort=False):
        texts = [f"{cell[name].mean():.3g} ({cell[name].min():.3g} - {cell[name].max():.3g})" for name in METRICS]
        rate = "" if objective in ANCHORS else f"{cell['learning_rate'].iloc[0]:g}" + "*" * (not cell["kept"].iloc[0])
        lines.append(f"| {objective} | {method} | {rate} | {len(cell)} | " + " | ".join(texts) + " |")
    refused = {f"{row['objective']}, {row['method']}: {row['refused']}": None for row in rows if "refused" in row}
    return "\n".join([*lines, "", *(f"- refused: {text}" for text in refused)]) + "\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Means over seeds: forgetting against utility, and forget quality against what is kept of the retain rows."""
    figure = Figure(figsize=(13, 6), layout="constrained")
    panels = figure.subplots(1, 2)
    means = chosen_rows(rows).groupby(["objective", "method"], sort=False)[list(METRICS[:-1])].mean()
    colors = {name: f"C{index}" for index, name in enumerate(FORGET_OBJECTIVES)}
    for (objective, method), values in means.iterrows():
        marker = "*" if not method else "osv"[METHOD_NAMES.index(method)]
        place = int(objective in colors) and list(colors).index(objective)
        style: dict[str, Any] = {"marker": marker, "color": colors.get(objective, "black"), "s": 60}
        style |= {"facecolor": "none", "linewidth": 2} if place >= 10 else {}
        style |= {"label": f"{objective} {method}"}
        panels[0].scatter(values["forget_prob"], values["model_utility"], **style)
        panels[1].scatter(values["forget_quality"], values["retain_prob"], **style)
    panels[0].set(xlabel="Prob of the forget rows", ylabel="model utility", xscale="log")
    panels[1].set(xlabel="forget quality", ylabel="Prob of retain rows held back from unlearning", xscale="log")
    panels[1].axvline(0.05, color="grey", linestyle="--", linewidth=1)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=7)
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=110)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/study_objectives"))
    parser.add_argument("--objectives", nargs="+", choices=list(FORGET_OBJECTIVES), default=list(FORGET_OBJECTIVES))
    parser.add_argument("--methods", nargs="+", choices=METHOD_NAMES, default=list(METHOD_NAMES))
    parser.add_argument("--learning_rates", nargs="+", type=float, default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="over the forget rows, five steps of 8 + 8 each")
    parser.add_argument("--hidden_size", type=int, default=96, help="of the three-layer model")
    parser.add_argument("--target_epochs", type=int, default=25, help="of the target and the retain-only model")
    arguments = parser.parse_args(argv)
    datasets.disable_progress_bars()
    torch.set_num_threads(1)
    home = arguments.output_dir
    home.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(arguments, name) for name in ("epochs", "hidden_size", "target_epochs")}
    results = Results(home / "results.jsonl", settings)
    for seed in range(arguments.seeds):
        study = Study(home / f"seed-{seed}", seed, arguments, results)
        if seed == 0:
            retain_before = study.before["retain_prob"]
            rates: dict[tuple[str, str], list[float]] = {}
        for objective, method in product(arguments.objectives, arguments.methods):
            tried = rates.get((objective, method), arguments.learning_rates)
            runs = [study.unlearn(objective, method, rate) for rate in tried]
            if seed == 0:
                ran = [run for run in runs if "refused" not in run]
                rates[objective, method] = [choose_rate(ran, retain_before)[0]] if ran else []
        (home / "table.md").write_text(table(results.rows))
        plot(results.rows, home / "objectives.png")
    print(table(results.rows))


if __name__ == "__main__":
    main()
