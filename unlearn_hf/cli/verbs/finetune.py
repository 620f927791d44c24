"""`unlearn-hf finetune`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from unlearn_hf.cli.arguments import FinetuningDataArguments, LoraArguments, ModelArguments, RunArguments
from unlearn_hf.cli.evaluation_arguments import EvaluationArguments
from unlearn_hf.cli.option_names import all_fields, training_fields
from unlearn_hf.cli.parsing import Settings, add_benchmark_defaults, build, collect_settings
from unlearn_hf.cli.run_folder import default_folder
from unlearn_hf.cli.training_run import TrainingRun
from unlearn_hf.cli.verbs import Verb
from unlearn_hf.common.importing import importing

if TYPE_CHECKING:
    from unlearn_hf.cli.data import LoadedData
    from unlearn_hf.training.evaluators import Evaluator

ARGUMENTS = (ModelArguments, FinetuningDataArguments, LoraArguments, EvaluationArguments, RunArguments)


def parse(argv: Sequence[str]) -> TrainingRun:
    """Read files and command line.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    return complete(first_look(argv))


def first_look(argv: Sequence[str]) -> TrainingRun:
    """Read files and command line without torch: names and types are checked, training options only for that.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    settings, problems = collect_settings(argv, all_fields())
    add_benchmark_defaults(settings)
    return assemble("finetune", settings, training_fields(), problems)


def complete(asked: TrainingRun) -> TrainingRun:
    """The run with the real training options, whose values are checked (imports torch).

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    return assemble(asked.verb, asked.settings, training_config(()))


def assemble(verb: str, settings: Settings, config_class: type, problems: Sequence[str] = ()) -> TrainingRun:
    """The run of a verb that fine-tunes.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    model, data, lora, evaluation, run, training = build([*ARGUMENTS, config_class], settings, problems)
    if "output_dir" not in settings:
        last = "finetuned" if data.train_file is not None else data.subset
        training.output_dir = default_folder(data, model, last, lora.use_lora)
    return TrainingRun(verb, settings, model, data, evaluation, lora, run, training)


def training_config(argv: Sequence[str]) -> type:
    """The configuration class of training."""
    from unlearn_hf.training.finetuning_config import FinetuningConfig

    return FinetuningConfig


def run(argv: Sequence[str]) -> int:
    """Fine-tune."""
    asked = first_look(argv)
    from unlearn_hf.cli.training import check_before_loading

    check_before_loading(asked)
    return finetune(asked)


def finetune(
    asked: TrainingRun, check: Callable[[LoadedData, Sequence[Evaluator]], None] = lambda data, evaluators: None
) -> int:
    """Fine-tune as asked, once that was checked.

    Args:
        asked: the first look.
        check: looks at data and evaluators before a model is loaded.

    Returns:
        The exit status.
    """
    from unlearn_hf.cli.data import load_data, make_evaluators, naming_lines, training_rows
    from unlearn_hf.cli.training import checked_tokenizer, tell_dry_run, train_and_judge

    with importing():
        data = load_data(asked.data)
        from unlearn_hf.models.sharding import join_processes
        from unlearn_hf.training.finetuning import FinetuningTrainer

    join_processes()
    arguments = complete(asked)
    assert isinstance(arguments.data, FinetuningDataArguments)
    rows = training_rows(data, arguments.data)
    training = arguments.training
    tokenizer = checked_tokenizer(arguments, data, {"train": rows})
    evaluators = make_evaluators(data, arguments.evaluation, training.template, training.max_length)
    check(data, evaluators)
    encodable = data.as_trained(rows, tokenizer, training.max_length)
    if arguments.run.dry_run:
        return tell_dry_run(arguments, {"train": encodable}, tokenizer)
    with naming_lines(arguments.data), warnings.catch_warnings():
        if arguments.data.benchmark is not None:  # its data repeat what they mean to
            warnings.filterwarnings("ignore", "train_dataset: .* rows come more than once")
        trainer = FinetuningTrainer(
            model=str(arguments.model.model_name_or_path),
            args=training,
            train_dataset=encodable,
            evaluators=evaluators,
            processing_class=tokenizer,
            peft_config=arguments.peft_config,
        )
    return train_and_judge(arguments, trainer, data, {"train": rows})


VERB = Verb(
    run,
    "Fine-tune the target model, or the retain-only model that serves as gold standard.",
    examples=(
        "unlearn-hf finetune --config configs/tofu/target.yaml",
        "unlearn-hf finetune --config configs/tofu/retain.yaml --split forget05",
        "unlearn-hf finetune --model_name_or_path M --train_file mine.jsonl --output_dir runs/mine",
    ),
    arguments=ARGUMENTS,
    training_config=training_config,
)
