"""`unlearn-hf unlearn`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unlearn_hf.cli.arguments import (
    DataArguments,
    LoraArguments,
    MethodArguments,
    ModelArguments,
    RequestArguments,
    RunArguments,
)
from unlearn_hf.cli.continuing import take_up
from unlearn_hf.cli.evaluation_arguments import EvaluationArguments
from unlearn_hf.cli.option_names import all_fields, configuration_of, method_fields, methods, training_fields
from unlearn_hf.cli.parsing import (
    ArgumentsError,
    Settings,
    add_benchmark_defaults,
    build,
    collect_settings,
    nearest,
    word_of,
)
from unlearn_hf.cli.run_folder import default_folder
from unlearn_hf.cli.training_run import TrainingRun
from unlearn_hf.cli.verbs import Verb
from unlearn_hf.common.importing import importing
from unlearn_hf.objectives import FORGET_OBJECTIVES, RETAIN_OBJECTIVES

ARGUMENTS = (
    MethodArguments,
    ModelArguments,
    DataArguments,
    LoraArguments,
    EvaluationArguments,
    RequestArguments,
    RunArguments,
)


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
    return look_at(*collect_settings(argv, all_fields()))


def look_at(settings: Settings, problems: Sequence[str] = ()) -> TrainingRun:
    """The same for settings that were collected, with the problems found there.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    problems = list(problems)
    add_benchmark_defaults(settings)
    problems += take_up(settings)
    method = chosen_method(settings, problems)
    if method is not None:
        return _assemble(method, settings, training_fields(method), problems)
    # The fields of every method are known as long as none is chosen: one mistake, one message.
    elsewhere = method_fields()
    known = {name: setting for name, setting in settings.items() if name not in elsewhere}
    build([*ARGUMENTS, training_fields(next(iter(methods())))], known, problems)
    raise AssertionError("build raises where there are problems")


def complete(asked: TrainingRun) -> TrainingRun:
    """The run with the real training options, whose values are checked (imports torch).

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    assert asked.method is not None
    return _assemble(asked.method, asked.settings, configuration_of(asked.method))


def _assemble(method: str, settings: Settings, config_class: type, problems: Sequence[str] = ()) -> TrainingRun:
    _, model, data, lora, evaluation, request, run, training = build(
        [*ARGUMENTS, config_class], settings, problems, method_fields(besides=method)
    )
    if "output_dir" not in settings:
        training.output_dir = default_folder(data, model, method, lora.use_lora)
    return TrainingRun("unlearn", settings, model, data, evaluation, lora, run, training, method, request)


def chosen_method(settings: Settings, problems: list[str]) -> str | None:
    """The method that is asked for; adds to `problems` when there is none of that name.

    Where a file could not be read, a method that is missing may stand in it.
    """
    method = word_of(settings, "method")
    if method in methods():
        return method
    names = ", ".join(methods())
    if method is None:
        if not problems:
            problems.append(f"method: missing; choose one of {names}.")
        return None
    hint = nearest(method, methods())
    for option, registry in (("forget_loss", FORGET_OBJECTIVES), ("retain_loss", RETAIN_OBJECTIVES)):
        if method in registry:
            hint = f"; it is an objective: choose a method, and add --{option} {method}."
    origin = settings["method"].origin
    problems.append(f"{origin}: method: {method!r} is not known{hint or '.'} There are {names}.")
    return None


def training_config(argv: Sequence[str]) -> type:
    """The configuration class of the method that the words choose, or the one all methods share."""
    from unlearn_hf.training.objective_options import with_objective_options
    from unlearn_hf.training.unlearning_config import UnlearningConfig

    settings, problems = collect_settings(argv, all_fields())
    method = chosen_method(settings, problems) if "method" in settings else None
    if problems:
        raise ArgumentsError(problems)
    return configuration_of(method) if method is not None else with_objective_options(UnlearningConfig)


def run(argv: Sequence[str]) -> int:
    """Unlearn."""
    from unlearn_hf.cli.data import load_data, naming_lines
    from unlearn_hf.cli.earlier_requests import EarlierRequests
    from unlearn_hf.cli.own_data_defaults import add_own_data_defaults
    from unlearn_hf.cli.training import check_before_loading, checked_tokenizer, tell_dry_run, train_and_judge

    # Everything that needs no torch comes first: who mistypes a name need not wait for its import.
    asked = first_look(argv)
    check_before_loading(asked)
    assert asked.method is not None
    with importing():
        data = load_data(asked.data, methods()[asked.method].uses_retain_rows)
        from unlearn_hf.cli.retain_results import evaluators_with_retain_results
        from unlearn_hf.methods import METHODS
        from unlearn_hf.models.sharding import join_processes
        from unlearn_hf.report.tables import print_retain_model
        from unlearn_hf.training.unlearning_config import UnlearningConfig

    join_processes()
    alone = asked.data.benchmark is None and asked.data.retain_file is None
    trained = {name: data.part(name) for name in (("forget",) if alone else ("forget", "retain"))}
    add_own_data_defaults(asked, *(len(trained.get(name, ())) for name in ("forget", "retain")))
    arguments = complete(asked)
    training = arguments.training
    tokenizer = checked_tokenizer(arguments, data, trained)
    earlier = EarlierRequests(arguments, trained) if arguments.request.continue_from is not None else None
    name = str(arguments.model.model_name_or_path)
    assert isinstance(training, UnlearningConfig)
    if training.verdict is None:  # rows of a benchmark may come as tokens; they are judged, too
        training.verdict = True
    rows = {name: data.as_trained(each, tokenizer, training.max_length) for name, each in trained.items()}
    if arguments.run.dry_run:
        return tell_dry_run(arguments, rows, tokenizer, METHODS[asked.method])
    evaluators = evaluators_with_retain_results(
        data,
        arguments.data,
        arguments.evaluation,
        training.template,
        training.max_length,
        model=name,
        folders=(arguments.folder, Path(name)),
    )
    with naming_lines(arguments.data):
        trainer = METHODS[asked.method](
            model=name,
            args=training,
            forget_dataset=rows["forget"],
            retain_dataset=rows.get("retain"),
            # Rows that no evaluator can judge still have a loss.
            eval_dataset=None if evaluators else rows,
            evaluators=evaluators,
            processing_class=tokenizer,
            peft_config=arguments.peft_config,
            holdout_dataset=data.datasets.get("holdout"),
        )
    status = train_and_judge(arguments, trainer, data, trained, METHODS[asked.method], earlier)
    if trainer.is_world_process_zero():
        print_retain_model(arguments.evaluation.named_retain_results, arguments.folder)
    return status


VERB = Verb(
    run,
    "Make a model forget one set of rows and keep another.",
    examples=(
        "unlearn-hf unlearn --config configs/tofu/eupmu.yaml --learning_rate 2e-5",
        "unlearn-hf unlearn --method npo --model_name_or_path M --forget_file f.jsonl --retain_file r.jsonl",
        "unlearn-hf unlearn --method npo --continue_from runs/first --forget_file g.jsonl --retain_file r.jsonl",
        "accelerate launch --config_file configs/accelerate/ddp.yaml -m unlearn_hf unlearn --config ...",
    ),
    arguments=ARGUMENTS,
    training_config=training_config,
)
