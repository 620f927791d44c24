"""`unlearn-hf retrain`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_hf.cli.arguments import RunArguments
from unlearn_hf.cli.option_names import all_fields, training_fields
from unlearn_hf.cli.parsing import (
    COMMAND_LINE,
    ArgumentsError,
    Setting,
    Settings,
    add_benchmark_defaults,
    add_unless_given,
    collect_settings,
    field_names,
    word_of,
)
from unlearn_hf.cli.training_run import TrainingRun
from unlearn_hf.cli.verbs import Verb
from unlearn_hf.cli.verbs.finetune import ARGUMENTS, assemble, finetune, training_config
from unlearn_hf.common.options import option
from unlearn_hf.common.run_record import RECORD, read_record
from unlearn_hf.common.terminal import is_main_process, say

if TYPE_CHECKING:
    from unlearn_hf.cli.data import LoadedData
    from unlearn_hf.training.evaluators import Evaluator

# Of the target's run, and none of its recipe.
_NOT_OF_THE_RECIPE = (
    "output_dir",
    "run_name",
    "subset",
    "train_file",
    "retain_results",
    "retain_registry",
    *field_names([RunArguments]),
)
# Taken even where the target's run left them at their defaults, which another version may have changed.
_RECIPE = (
    "model_name_or_path",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "weight_decay",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "seed",
    "template",
    "max_length",
    "model_dtype",
    "trainable_dtype",
)


@dataclass
class RetrainArguments:
    """The target, whose recipe is followed"""

    target: str | None = option(None, "Run folder of the target model, as `finetune` left it; its recipe is taken.")


def first_look(argv: Sequence[str]) -> tuple[TrainingRun, str]:
    """What is to be trained, and the target, without torch.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    settings, problems = collect_settings(argv, {*all_fields(), "target"})
    target = word_of(settings, "target")
    settings.pop("target", None)
    if target is None:
        raise ArgumentsError([*problems, "target: missing; name the run folder of the target model."])
    problems += _take_recipe(settings, Path(target))
    if problems:
        raise ArgumentsError(problems)
    add_benchmark_defaults(settings)
    asked = assemble("retrain", settings, training_fields())
    if "output_dir" not in settings:  # beside the target, and beside the registry of its models
        asked.training.output_dir = str(Path(os.path.relpath(Path(target).absolute().parent)) / asked.folder.name)
        settings["output_dir"] = Setting(asked.training.output_dir, "beside the target")
    return asked, target


def _take_recipe(settings: Settings, target: Path) -> list[str]:
    """Add what the target's run was given, as far as it is not given anew; returns what is wrong."""
    if not (target / RECORD).is_file():
        return [f"target: {str(target)!r} is no run folder ({RECORD} is missing); name one that `finetune` made."]
    try:
        record = read_record(target)
    except ValueError as problem:
        return [f"target: {problem}"]
    recorded, verb = record.get("configuration", {}), record.get("verb")
    if verb == "unlearn":
        started = recorded.get("model_name_or_path")
        return [f"target: {str(target)!r} was unlearned; name the target that it started from, {started!r}."]
    if verb != "finetune" or recorded.get("subset") == "retain":
        return [f"target: {str(target)!r} is not a target model but a retain-only one; name a run of `finetune`."]
    if record.get("status") != "finished":
        return [
            f"target: the run in {str(target)!r} is {record.get('status')}; finish it with --resume, or name another."
        ]
    problems = [
        f"{settings[name].origin}: {name}: `retrain` decides it itself; leave it out."
        for name in ("subset", "train_file", "retain_results")
        if name in settings and settings[name].origin == COMMAND_LINE
    ]
    settings.pop("train_file", None)
    if "model_name_or_path" in settings:
        problems.append("model_name_or_path: the base model is the target's; leave it out, or use `finetune`.")
    own = "forget_file" in settings or "retain_file" in settings
    if not own and not recorded.get("benchmark") and not (recorded.get("forget_file") and recorded.get("retain_file")):
        problems.append(
            f"retain_file: missing; the target learnt {recorded.get('train_file')!r}, so say with --forget_file and "
            "--retain_file which of it is to be forgotten."
        )
    left_out = [*_NOT_OF_THE_RECIPE, *(("benchmark", "split", "source", "revision") if own else ())]
    taken = [name for name in [*record.get("settings", {}), *_RECIPE] if name not in left_out]
    add_unless_given(settings, {name: recorded.get(name) for name in taken}, str(target / RECORD))
    settings["retain_results"] = Setting(None, "retrain")
    settings["subset"] = Setting("retain", "retrain")
    processes = record.get("machine", {}).get("processes", 1)
    if processes != int(os.environ.get("WORLD_SIZE", "1")):
        say(
            f"note: the target was trained by {processes} processes; the same number, or gradient_accumulation_steps "
            "to match, keeps the rows per step."
        )
    return problems


def run(argv: Sequence[str]) -> int:
    """Fine-tune on the retain rows alone, and register the results."""
    from unlearn_hf.cli.training import check_before_loading

    asked, target = first_look(argv)
    if not asked.run.final_evaluation:
        raise ValueError("final_evaluation: False leaves no results to register; leave it out, or use `finetune`.")
    check_before_loading(asked)
    from unlearn_hf.cli.retain_results import registry_of, trained_on
    from unlearn_hf.evaluation import RESULT_FILE
    from unlearn_hf.evaluation.retain_registry import evaluated_by, read_registry, register
    from unlearn_hf.models.weights import BaseModel

    registry = registry_of(asked.evaluation, asked.folder)
    read_registry(registry)  # broken, it is told before hours of training
    base = BaseModel.named(str(asked.model.model_name_or_path))
    evaluated: list[dict[str, Any]] = []

    def check(data: LoadedData, evaluators: Sequence[Evaluator]) -> None:
        found = evaluated_by(evaluators[0]) if evaluators else None
        if found is None:
            raise ValueError(
                "forget_file: rows of raw text or conversations cannot be evaluated, so there would be no results to "
                "register; give question and answer, or use `finetune`."
            )
        evaluated.append(found)
        _check_apart(data)

    print(f"the recipe is that of {target}: base model {base.name}")
    status = finetune(asked, check)
    if status == 0 and not asked.run.dry_run and is_main_process():
        register(registry, asked.folder / RESULT_FILE, evaluated[0], trained_on(asked.data), base)
        print(f"registered in {os.path.relpath(registry)}: {os.path.relpath(asked.folder / RESULT_FILE)}")
    return status


def _check_apart(data: LoadedData) -> None:
    """Refuse forget rows among the retain rows: the model would not be one that never saw them."""
    if not data.benchmark.as_trained:
        return
    retain = {tuple(sorted(row.items())) for row in data.part("retain")}
    shared = [number for number, row in enumerate(data.part("forget")) if tuple(sorted(row.items())) in retain]
    if shared:
        raise ValueError(
            f"retain_file: {len(shared)} of the forget rows are in it too (first: row {shared[0]}, from 0), so that a "
            "model trained on it has seen them; take them out."
        )


VERB = Verb(
    run,
    "Train the gold standard, by the target's recipe on the retain rows alone, and register its results.",
    examples=(
        "unlearn-hf retrain --target runs/tofu_M_full --split forget05",
        "unlearn-hf retrain --target runs/mine --forget_file f.jsonl --retain_file r.jsonl",
    ),
    arguments=(RetrainArguments, *ARGUMENTS),
    training_config=training_config,
)
