"""What must be the same when a run is continued: model, method, adapter, objectives and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlearn_hf.cli.parsing import ArgumentsError
from unlearn_hf.cli.training_run import TrainingRun
from unlearn_hf.common.run_record import changed_settings, read_record
from unlearn_hf.models.weights import BaseModel
from unlearn_hf.objectives.registry import parameter_options

_SAME = (
    "method",
    "benchmark",
    "split",
    "revision",
    "forget_part",
    "subset",
    "max_forget_rows",
    "max_retain_rows",
    "template",
    "max_length",
    "forget_loss",
    "retain_loss",
    "forget_tokens",
    "level_estimate",
    "refusal_file",
    "alternative_column",
    "trainable_parameters",
    "use_lora",
    "load_in_4bit",
    "continue_from",
    "request_id",
)
_SAME_WITH_ROWS = ("held_back_rows",)  # whose default follows from the number of rows
_SAME_ADAPTER = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")


def check_same_run(run: TrainingRun, rows_known: bool = False) -> list[str]:
    """Options that differ from those of the run that is to be continued, and cannot.

    Steps, learning rates, saving, logging and evaluation may differ.

    Args:
        run: what was asked for.
        rows_known: whether defaults that follow from the rows are filled in.
    """
    if not run.run.resume:
        return []
    record = read_record(run.folder)
    names = (*_SAME, *parameter_options(), *(_SAME_ADAPTER if run.lora.use_lora else ()))
    names += _SAME_WITH_ROWS if rows_known else ()
    changes = changed_settings(record, run.configuration(), names)
    if record.get("verb", run.verb) != run.verb:
        changes = [f"verb: {record['verb']} -> {run.verb}"]
    changes += _another_model(record, str(run.model.model_name_or_path))
    return [
        f"resume: {change}, but the run in {str(run.folder)!r} can only be continued as it was; give the old value, "
        "or another --output_dir."
        for change in changes
    ]


def _another_model(record: Mapping[str, Any], name: str) -> list[str]:
    """How the model of this name differs from the one that the run began with, by its files, else by name."""
    if "model" not in record:  # before version 0.2
        return []
    then, now = BaseModel(**record["model"]), BaseModel.named(name)
    if then.fingerprint and now.fingerprint:
        if then.fingerprint == now.fingerprint:
            return []
    elif then.name == now.name:
        return []
    told = [f"{each.name!r} (files {(each.fingerprint or 'unknown')[:12]})" for each in (then, now)]
    return [f"model_name_or_path: {told[0]} -> {told[1]}"]


def check_same_rows(run: TrainingRun, trained_on: dict[str, Any]) -> None:
    """Refuse to continue a run on other rows, whatever the files are called now.

    Args:
        run: what was asked for.
        trained_on: for each set its number of rows and fingerprint.

    Raises:
        ArgumentsError: naming each set whose rows differ from those in the record of the run.
    """
    earlier = read_record(run.folder).get("data", {}).get("trained_on", {})
    problems = [
        f"resume: the {name} rows are not those of the run in {str(run.folder)!r} ({earlier[name]['rows']} then, "
        f"{facts['rows']} now); give the same data, or another --output_dir."
        for name, facts in trained_on.items()
        if name in earlier and earlier[name]["sha256"] != facts["sha256"]
    ]
    if problems:
        raise ArgumentsError(problems)
