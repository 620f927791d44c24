"""The model card of a run: `README.md` in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from unlearn_hf.benchmarks.base import BENCHMARKS
from unlearn_hf.common.files import write_text
from unlearn_hf.report.tables import is_variant
from unlearn_hf.training.config import FinetuningConfig
from unlearn_hf.training.finetuning import FinetuningTrainer

CARD = "README.md"
_TRAINING = (
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "optim",
    "max_grad_norm",
    "bf16",
    "fp16",
    "seed",
)


def write_model_card(folder: Path, record: Mapping[str, Any], trainer: type[FinetuningTrainer] | None) -> None:
    """Write the card.

    Args:
        folder: the run folder.
        record: content of `run.json`.
        trainer: the method's trainer class; `None` for fine-tuning.
    """
    configuration = record["configuration"]
    base = str(configuration["model_name_or_path"])
    title = configuration.get("method") or "fine-tuned"
    parts = [
        _front_matter(folder, record, base),
        f"# {Path(base).name}, {title}",
        _summary(record, base, trainer),
        "## Use\n\n" + _usage(folder),
        "## Data\n\n" + _data(record["data"]),
    ]
    if record.get("metrics"):
        parts.append("## Evaluation\n\n" + _metrics(folder, record["metrics"]))
    parts.append("## Training\n\n" + _training(record, trainer))
    if trainer is not None and getattr(trainer, "paper", None):
        paper = trainer.paper  # type: ignore[attr-defined]
        parts.append(f"## Source\n\n{paper['title']}. {paper['citation']} {paper['url']}")
    write_text(folder / CARD, "\n\n".join(parts) + "\n")


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _front_matter(folder: Path, record: Mapping[str, Any], base: str) -> str:
    front: dict[str, Any] = {"library_name": "peft" if _is_adapter(folder) else "transformers"}
    if not Path(base).exists():
        front["base_model"] = base  # a folder of this machine would mean nothing elsewhere
    method = record["configuration"].get("method")
    front["tags"] = ["unlearning", method] if method else ["fine-tuning"]
    data = record["data"]
    if data.get("source", "").startswith("hub"):
        known = BENCHMARKS[data["benchmark"]].hub_datasets
        front["datasets"] = [known[name] for name in (data["split"], "") if name in known][:1]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---"


def _summary(record: Mapping[str, Any], base: str, trainer: type[FinetuningTrainer] | None) -> str:
    adapter = " as a low-rank adapter" if record["configuration"].get("use_lora") else ""
    if trainer is None:
        text = f"`{base}`, fine-tuned{adapter} with unlearn_hf {record['versions']['unlearn_hf']}."
    else:
        line = (trainer.__doc__ or "").strip().splitlines()[0].rstrip(".")
        text = f"`{base}` after unlearning{adapter} with unlearn_hf {record['versions']['unlearn_hf']}. {line}."
    if record.get("divergence"):
        text += f"\n\n**The run diverged** at {record['divergence']}"
    if record.get("ended"):
        text += f"\n\n**The method ended the run** before {record['ended']}"
    if record.get("retain_budget_spent"):
        text += f"\n\n**The retain budget was spent** at {record['retain_budget_spent']}"
    return text


def _usage(folder: Path) -> str:
    loader = "AutoPeftModelForCausalLM" if _is_adapter(folder) else "AutoModelForCausalLM"
    package = "peft" if _is_adapter(folder) else "transformers"
    tokenizer_import = "from transformers import AutoTokenizer\n" if _is_adapter(folder) else ""
    names = loader if _is_adapter(folder) else f"{loader}, AutoTokenizer"
    return (
        f"```python\nfrom {package} import {names}\n{tokenizer_import}\n"
        f'model = {loader}.from_pretrained("{folder.name}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{folder.name}")\n```'
    )


def _data(data: Mapping[str, Any]) -> str:
    lines = [f"- {name}: {value}" for name, value in data.items() if not isinstance(value, dict)]
    for name, facts in data.get("trained_on", {}).items():
        lines.append(f"- {name}: {facts['rows']} rows, SHA-256 {facts['sha256']}")
    return "\n".join(lines)


def _metrics(folder: Path, metrics: Mapping[str, float]) -> str:
    """A table of the result file if there is one, else of what the trainer reported."""
    result = folder / "evaluation.json"
    if not result.is_file():
        rows = [f"| {name} | {value:.4g} |" for name, value in metrics.items() if isinstance(value, (int, float))]
        return "\n".join(["| metric | value |", "| --- | ---: |", *rows])
    lines = ["| metric | value | better | rows | definition |", "| --- | ---: | --- | ---: | --- |"]
    directions = {True: "higher", False: "lower", None: "near its target"}
    lines += [
        f"| {metric['name']} | {metric['value']:.4g} | {directions[metric['higher_is_better']]} | {metric['n']} "
        f"| {metric['definition']} |"
        for metric in json.loads(result.read_text(encoding="utf-8"))["metrics"]
        if not is_variant(metric["name"])
    ]
    lines.append("\n`evaluation.json` holds these and the same under other definitions, `samples.parquet` every row.")
    return "\n".join(lines)


def _processes(machine: Mapping[str, Any]) -> str:
    count = machine["processes"]
    return f"{count} process{'es' if count > 1 else ''} on {machine['device']}"


def _training(record: Mapping[str, Any], trainer: type[FinetuningTrainer] | None) -> str:
    configuration = record["configuration"]
    names = [*_TRAINING]
    if trainer is not None:
        config_class = trainer.config_class
        shared = {item.name for item in fields(FinetuningConfig)}
        names = [item.name for item in fields(config_class) if item.name not in shared] + names
    rows = [f"| {name} | {configuration[name]} |" for name in names if configuration.get(name) is not None]
    machine, versions = record["machine"], record["versions"]
    used = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "accelerate", "peft", "python"))
    lines = [
        "\n".join(["| option | value |", "| --- | --- |", *rows]),
        f"{record['started'][:10]}, {_processes(machine)}, {used}"
        + (f", commit {record['commit']}." if record.get("commit") else "."),
        "`run.json` holds every option, seed and version.",
    ]
    return "\n\n".join(lines)
