"""Which defaults are good: methods and EUPMU's options over seeds and learning rates, at equal compute.

    python scripts/study_defaults.py --settings npo 'eupmu*'                # mini data, three seeds, on a CPU
    python scripts/study_defaults.py --model_name_or_path models/SmolLM2-135M-Instruct --tofu data/tofu \
        --learning_rates 2e-5 5e-5 --output_dir runs/study_tofu             # TOFU's forget01

Equal compute: a token that goes through a forward pass counts 1, through forward and backward 3 (the usual 2 and 6
operations per parameter); reference likelihoods, re-evaluation and probes count, padding does not. A run stops after
the first step at which it has spent what `--epochs` epochs of forget rows with as many retain rows cost. Finished runs
and models are kept. The table gives mean (min - max) over seeds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import torch
from matplotlib.figure import Figure
from transformers import TrainerCallback, set_seed

from unlearn_hf.benchmarks.tofu.data import TofuData, load_tofu
from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator
from unlearn_hf.cli.demo import Demo, DemoSettings
from unlearn_hf.methods import METHODS, EUPMUConfig
from unlearn_hf.models.loading import load_tokenizer
from unlearn_hf.training.finetuning import FinetuningTrainer
from unlearn_hf.training.finetuning_config import FinetuningConfig

METRICS = ("forget_prob", "retain_prob", "model_utility", "forget_quality", "seconds")
METHOD_NAMES = ("graddiff", "npo", "ngdiff", "eupmu")
SWEEPS: dict[str, tuple[Any, ...]] = {
    "epsilon": (-0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05),
    "dual_learning_rate": (0.03, 0.1, 0.3, 1.0, 3.0),
    "dual_signal": ("log", "raw"),
    "scalarization": ("sum", "normalized", "log"),
    "initial_dual": (0.0, 1.0, 3.0),
}


def name_of(option: str, value: Any) -> str:
    """The setting that has EUPMU's option at this value: defaults are run once."""
    return "eupmu" if value == getattr(EUPMUConfig, option) else f"eupmu {option}={value}"


# A name of a setting says what differs from the method's defaults.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHOD_NAMES},
    **{name_of(option, value): ("eupmu", {option: value}) for option in SWEEPS for value in SWEEPS[option]},
    **{f"eupmu level epsilon={x}": ("eupmu", {"constraint": "level", "epsilon": x}) for x in (0.02, 0.1, 0.5, 1.0)},
    **{f"eupmu level {x}": ("eupmu", {"constraint": "level", "level_estimate": x}) for x in ("ema", "batch")},
}
QUIET: dict[str, Any] = {"disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "report_to": "none"}
PLAIN = {"weight_decay": 0.0, "lr_scheduler_type": "constant", "use_cpu": not torch.cuda.is_available(), **QUIET}


class TofuStudy(Demo):
    """The demonstration's models, from a pretrained one, on forget01 and a slice of the retain set."""

    def __init__(self, folder: Path, settings: DemoSettings, arguments: argparse.Namespace) -> None:
        self.folder, self.settings, self.model = folder, settings, arguments.model_name_or_path
        tofu = load_tofu("forget01", source=arguments.tofu)
        limits = {"forget": len(tofu["forget"]), "retain": arguments.retain_rows}
        parts = {name: list(rows)[: limits.get(name, arguments.evaluation_rows)] for name, rows in tofu.items()}
        self.data = TofuData(parts, split=tofu.split, source=tofu.source)
        full = datasets.concatenate_datasets([self.data["forget"], self.data["retain"]])
        self.corpus = {"full": full, "retain": self.data["retain"]}
        self.tokenizer: Any = load_tokenizer(self.model)
        self.reference, self.rows, self.generations = None, [], {}

    def memorise(self, method: str, corpus: str) -> Path:
        """Fine-tune the pretrained model on `corpus` and judge it; returns its folder."""
        set_seed(self.settings.seed)
        options = {"num_train_epochs": 6, "per_device_train_batch_size": 8, "learning_rate": 1e-4, **PLAIN}
        config = FinetuningConfig(output_dir=str(self.folder / method), seed=self.settings.seed, **options)
        trainer = FinetuningTrainer(self.model, config, self.corpus[corpus], processing_class=self.tokenizer)
        trainer.train()
        trainer.save_model()
        evaluator = TofuEvaluator(self.data, retain_results=self.reference, batch_size=64, max_new_tokens=32)
        evaluator(trainer.model, self.tokenizer, output_dir=self.folder / method)
        return self.folder / method


class ComputeBudget(TrainerCallback):
    """Counts tokens of every forward pass of a model, three times where a backward pass follows, and stops a run."""

    def __init__(self, budget: float) -> None:
        self.budget, self.spent = budget, 0

    def count(self, model: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A forward pre-hook."""
        # Packed batches have no mask, because they have no padding.
        tokens = int(named["attention_mask"].sum()) if "attention_mask" in named else named["input_ids"].numel()
        self.spent += tokens * (3 if torch.is_grad_enabled() else 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop when the budget is spent."""
        control.should_training_stop |= self.spent >= self.budget


def unlearn(cell: dict[str, Any], study: Demo, epochs: int, folder: Path) -> dict[str, Any]:
    """Unlearn, evaluate, and keep the result (not the model) in `folder`; or read what is there."""
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    shutil.rmtree(folder, ignore_errors=True)  # cached likelihoods of an interrupted run would come for free
    method, options = SETTINGS[cell["setting"]]
    set_seed(cell["seed"])
    # One epoch more than the budget pays for, because retain rows that happen to be short cost less.
    options = {"num_train_epochs": epochs + 1, "per_device_train_batch_size": 8, **PLAIN, **options}
    options |= {"learning_rate": cell["learning_rate"], "seed": cell["seed"]}
    config = METHODS[method].config_class(output_dir=str(folder), **options)
    trainer = METHODS[method](str(study.folder / "target"), config, study.data["forget"], study.data["retain"])
    pairs = trainer.train_dataset
    lengths = [[len(ids) for ids in rows["input_ids"]] for rows in (pairs.forget, pairs.retain)]
    budget = ComputeBudget(3 * epochs * len(pairs) * sum(sum(each) / len(each) for each in lengths))
    trainer.add_callback(budget)
    trainer.model.register_forward_pre_hook(budget.count, with_kwargs=True)
    start = time.perf_counter()
    trainer.train()
    outcome = {"steps": trainer.state.global_step, "tokens": budget.spent, "seconds": time.perf_counter() - start}
    evaluator = TofuEvaluator(study.data, retain_results=study.reference, batch_size=64, max_new_tokens=32)
    found = evaluator(trainer.model, study.tokenizer, output_dir=folder) | outcome
    row = cell | {name: found[name] for name in (*METRICS, "steps", "tokens")}
    result.write_text(json.dumps(row, indent=2) + "\n")
    return row


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| setting | learning rate | seeds | steps | " + " | ".join(METRICS) + " |", "|" + " --- |" * 9]
    for (setting, rate), cell in pd.DataFrame(rows).groupby(["setting", "learning_rate"], sort=False):
        texts = [f"{cell[name].mean():.3g} ({cell[name].min():.3g} - {cell[name].max():.3g})" for name in METRICS]
        steps = cell["steps"].mean()
        lines.append(f"| {setting} | {rate:g} | {len(cell)} | {steps:.0f} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Each option against forgetting and utility (mean, min to max), and the methods against each other."""
    figure, frame = Figure(figsize=(15, 6), layout="constrained"), pd.DataFrame(rows)
    panels = figure.subplots(2, 4)
    for metric, scale, line in zip(("forget_prob", "model_utility"), ("log", "linear"), panels, strict=True):
        for axes, option in zip(line[:3], SWEEPS, strict=False):
            names = [name_of(option, value) for value in SWEEPS[option]]
            for rate, part in frame[frame["setting"].isin(names)].groupby("learning_rate"):
                spread = part.groupby("setting")[metric].agg(["mean", "min", "max"]).reindex(names).dropna()
                errors = [spread["mean"] - spread["min"], spread["max"] - spread["mean"]]
                places = [names.index(name) for name in spread.index]
                axes.errorbar(places, spread["mean"], errors, marker="o", capsize=3, label=f"{rate:g}")
            axes.set_xticks(range(len(names)), [str(value) for value in SWEEPS[option]])
            axes.set(xlabel=f"EUPMU {option}", ylabel=metric, yscale=scale)
        for color, name in enumerate(METHOD_NAMES):
            for marker, (rate, part) in zip(
                "osv^", frame[frame["setting"] == name].groupby("learning_rate"), strict=False
            ):
                label = f"{name} {rate:g}"
                line[3].scatter(part["forget_quality"], part[metric], marker=marker, color=f"C{color}", label=label)
        line[3].set(
            xlabel="forget_quality", ylabel=metric, xscale="log", yscale=scale, title="methods at equal compute"
        )
    panels[0][0].legend(title="learning rate")
    panels[1][3].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/study"))
    parser.add_argument("--settings", nargs="+", default=["*"], help=f"names or patterns of {list(SETTINGS)}")
    parser.add_argument("--learning_rates", nargs="+", type=float, default=[1e-4, 2e-4])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one_target", action="store_true", help="all seeds unlearn from the first seed's target")
    parser.add_argument("--epochs", type=int, default=10, help="compute, in epochs over the forget rows")
    parser.add_argument("--model_name_or_path", help="a pretrained model, for TOFU instead of the mini data")
    parser.add_argument("--tofu", default="hub", help="hub, or a folder of the official files")
    parser.add_argument("--retain_rows", type=int, default=160, help="TOFU: retain rows to train on")
    parser.add_argument("--evaluation_rows", type=int, default=100, help="TOFU: rows of each evaluation set")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    chosen = [name for name in SETTINGS if any(fnmatch(name, pattern) for pattern in arguments.settings)]
    if not chosen:
        parser.error(f"settings: {arguments.settings} match none of {list(SETTINGS)}")
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        home = arguments.output_dir / f"seed-{seed}"
        model_seed = 0 if arguments.one_target else seed
        made = (arguments.output_dir / f"seed-{model_seed}", DemoSettings(seed=model_seed))
        study = TofuStudy(*made, arguments) if arguments.model_name_or_path else Demo(*made)
        for name, corpus in (("target", "full"), ("retain_only", "retain")):
            if not (study.folder / name / "evaluation.json").exists():
                study.memorise(name, corpus)
        study.reference = study.folder / "retain_only"
        for setting, rate in product(chosen, arguments.learning_rates):
            folder = home / f"{setting.replace(' ', '_')}_{rate:g}"
            cell = {"setting": setting, "learning_rate": rate, "seed": seed}
            rows.append(unlearn(cell, study, arguments.epochs, folder))
            print(json.dumps(rows[-1]), flush=True)
        (arguments.output_dir / "results.json").write_text(json.dumps(rows, indent=2) + "\n")
        (arguments.output_dir / "table.md").write_text(table(rows))
    plot(rows, arguments.output_dir / "study.png")
    print(table(rows))


if __name__ == "__main__":
    main()
