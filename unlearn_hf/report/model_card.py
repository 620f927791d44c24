"""The model card of a run: `README.md` in its folder, with its results as the `model-index` that the hub reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from unlearn_hf.benchmarks.base import BENCHMARKS
from unlearn_hf.common.files import write_text
from unlearn_hf.common.run_record import CARD
from unlearn_hf.evaluation import RESULT_FILE
from unlearn_hf.evaluation.verdict.facts import Verdict
from unlearn_hf.report.audit import audit_section
from unlearn_hf.report.tables import is_variant
from unlearn_hf.report.verdict import card_verdict
from unlearn_hf.training.card import card_data
from unlearn_hf.training.finetuning import FinetuningTrainer
from unlearn_hf.training.finetuning_config import FinetuningConfig

_TEMPLATE = Path(__file__).with_suffix(".md")
_DIRECTIONS = {True: "higher", False: "lower", None: "near its target"}
_ENDINGS = {
    "divergence": "**The run diverged** at {}",
    "ended": "**The method ended the run** before {}",
    "stopped": "Stopped at {}.",
    "retain_budget_spent": "**The retain budget was spent** at {}",
}
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


def write_model_card(
    folder: Path,
    record: Mapping[str, Any],
    trainer: type[FinetuningTrainer] | None,
    verdict: Verdict | None = None,
) -> None:
    """Write the card.

    Args:
        folder: the run folder.
        record: content of `run.json`.
        trainer: the method's trainer class; `None` for fine-tuning.
        verdict: what the run did, where that was judged.
    """
    configuration, name = record["configuration"], folder.resolve().name
    results = _results(folder) if record.get("metrics") else []
    adapter = (folder / "adapter_config.json").is_file()
    base = str(configuration["model_name_or_path"])
    names = [*_TRAINING]
    if trainer is not None:
        shared = {item.name for item in fields(FinetuningConfig)}
        names = [item.name for item in fields(trainer.config_class) if item.name not in shared] + names
    card = ModelCard.from_template(
        _card_data(record, base, name, adapter, results),
        template_path=str(_TEMPLATE),
        **{
            "commit": None,
            **record,
            "metrics": {key: each for key, each in record.get("metrics", {}).items() if isinstance(each, int | float)},
            "base": base,
            "base_name": Path(base).name,
            "method": configuration.get("method"),
            "summary": (trainer.__doc__ or "").strip().splitlines()[0].rstrip(".") if trainer is not None else "",
            "notes": _notes(record),
            "verdict": card_verdict(verdict) if verdict is not None else None,
            "folder": name,
            "adapter": adapter,
            "code": next((file.name for file in folder.glob("*.py")), None),
            "results": results,
            "directions": _DIRECTIONS,
            "options": [name for name in names if name in configuration],
            "paper": getattr(trainer, "paper", None),
        },
    )
    write_text(folder / CARD, card.content + "\n")


def add_audit(folder: Path) -> None:
    """Put the section on the audit into the card of a run, in place of an older one."""
    path = folder / CARD
    heading, section = "## Audit\n", "\n".join(audit_section(folder))
    before, found, after = path.read_text(encoding="utf-8").partition(heading)
    rest = after.partition("\n## ")
    write_text(path, f"{before.rstrip()}\n\n{section}" + (f"\n## {rest[2]}" if found and rest[1] else ""))


def _notes(record: Mapping[str, Any]) -> list[str]:
    """How the run ended, where it did not simply finish."""
    return [text.format(record[name]) for name, text in _ENDINGS.items() if record.get(name)]


def _results(folder: Path) -> list[dict[str, Any]]:
    """The metrics of the result file, if there is one, under their default definitions."""
    path = folder / RESULT_FILE
    if not path.is_file():
        return []
    metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
    return [metric for metric in metrics if not is_variant(metric["name"])]


def _hub_dataset(data: Mapping[str, Any]) -> str | None:
    if not data.get("source", "").startswith("hub"):
        return None
    known = BENCHMARKS[data["benchmark"]].hub_datasets
    return next((known[name] for name in (data["split"], "") if name in known), None)


def _card_data(
    record: Mapping[str, Any], base: str, name: str, adapter: bool, results: Sequence[Mapping[str, Any]]
) -> ModelCardData:
    """What the hub reads of a card: where the model comes from, and its results."""
    data, method = record["data"], record["configuration"].get("method")
    dataset = _hub_dataset(data)
    given: dict[str, Any] = {}
    if dataset is not None:
        given["datasets"] = [dataset]
    if results:
        benchmark = data.get("benchmark") or "own"
        given["model_name"] = name
        given["eval_results"] = [
            EvalResult(
                task_type="text-generation",
                dataset_type=dataset or benchmark,
                dataset_name=" ".join(str(each) for each in (benchmark, data.get("split")) if each),
                metric_type=metric["name"],
                metric_value=metric["value"],
                metric_args={key: metric[key] for key in ("definition", "version", "n") if key in metric},
            )
            for metric in results
        ]
    return card_data(base, adapter, ["unlearning", method] if method else ["fine-tuning"], **given)
