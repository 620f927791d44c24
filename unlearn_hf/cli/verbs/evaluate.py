"""`unlearn-hf evaluate`: a model, or what others measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlearn_hf.cli.arguments import DataArguments, ModelArguments
from unlearn_hf.cli.checks import check_evaluation_options, check_models, check_output_file, lies_in, named_inputs
from unlearn_hf.cli.evaluation_arguments import EvaluateArguments, EvaluationArguments
from unlearn_hf.cli.evaluation_run import EvaluationRun, read_with_record
from unlearn_hf.cli.parsing import COMMAND_LINE, ArgumentsError
from unlearn_hf.cli.run_folder import set_aside
from unlearn_hf.cli.verbs import Verb
from unlearn_hf.common.files import write_json
from unlearn_hf.common.importing import importing
from unlearn_hf.common.locks import check_free, hold_folder
from unlearn_hf.common.run_record import RECORD
from unlearn_hf.common.terminal import is_main_process
from unlearn_hf.evaluation import RESULT_FILE, SAMPLES_FILE, TASKS_FILE

ARGUMENTS = (EvaluateArguments, ModelArguments, DataArguments, EvaluationArguments)
# What an evaluation leaves in its folder; whatever else is there stays where it is.
RESULTS = (RESULT_FILE, SAMPLES_FILE, TASKS_FILE, "partial")
# Options that matter to a log. Others may stand in a file that describes a run.
_LOG_OPTIONS = (
    "from_log",
    "retain_results",
    "output_file",
    "overwrite",
    "protocol",
    "compatibility",
    "benchmark",
    "split",
)


def parse(argv: Sequence[str]) -> EvaluationRun:
    """Read files, command line, and the record of the run that made the model.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    settings, parts = read_with_record(ARGUMENTS, argv)
    return EvaluationRun(settings, *parts)


def run(argv: Sequence[str]) -> int:
    """Evaluate."""
    arguments = parse(argv)
    if arguments.evaluate.from_log is not None:
        metrics = _from_log(arguments)
    else:
        _check(arguments)
        try:
            metrics = evaluate_model(arguments)
        except KeyboardInterrupt as problem:
            raise KeyboardInterrupt("the same command goes on where it stopped") from problem
    from unlearn_hf.report.tables import print_metrics

    file = arguments.evaluate.output_file
    nowhere = arguments.evaluate.from_log is not None and file is None
    print_metrics(metrics, "--output_file writes them" if nowhere else f"they are in {file or 'the result file'}")
    return 0


def _from_log(arguments: EvaluationRun) -> dict[str, float]:
    from unlearn_hf.benchmarks.from_logs import evaluate_from_log

    _check_log(arguments)
    evaluation = arguments.evaluation
    options: dict[str, Any] = {"compatibility": evaluation.compatibility or "auto", "split": arguments.data.split}
    if arguments.data.benchmark is not None:
        options["corpus"] = arguments.data.split
    if "protocol" in arguments.settings:
        options["protocol"] = evaluation.protocol
    log = str(arguments.evaluate.from_log)
    return evaluate_from_log(log, evaluation.named_retain_results, arguments.evaluate.output_file, **options)


def _check_log(arguments: EvaluationRun) -> None:
    """Refuse options without effect and the loss of a file, before anything is read.

    Raises:
        ArgumentsError: listing everything that is in the way.
    """
    evaluate = arguments.evaluate
    problems = [
        f"{name}: has no effect with --from_log, which loads neither model nor data; leave it out."
        for name, setting in arguments.settings.items()
        if setting.origin == COMMAND_LINE and name not in _LOG_OPTIONS
    ]
    if evaluate.output_file is not None:
        inputs = {"from_log": evaluate.from_log, "retain_results": arguments.evaluation.named_retain_results}
        present = {name: path for name, path in inputs.items() if path is not None}
        problems += check_output_file(evaluate.output_file, evaluate.overwrite, present)
    if problems:
        raise ArgumentsError(problems)


def _check(arguments: EvaluationRun) -> None:
    """Look at what can be seen without loading anything.

    Raises:
        ArgumentsError: listing everything that is missing or in the way.
    """
    if is_main_process():
        check_free(arguments.folder)
    problems = []
    if arguments.model.model_name_or_path is None:
        problems.append("model_name_or_path: missing; name a model or a run folder, or a result file with --from_log.")
    evaluate, folder = arguments.evaluate, arguments.folder
    problems += check_models(arguments.model, arguments.evaluation, evaluate.trust_remote_code)
    problems += check_evaluation_options(arguments.data, arguments.evaluation)
    problems += _check_folder(folder, evaluate.overwrite, arguments.evaluation.named_retain_results)
    if evaluate.output_file is not None:
        inputs = named_inputs(arguments.model, arguments.data, arguments.evaluation)
        problems += check_output_file(evaluate.output_file, evaluate.overwrite, inputs)
        if any(lies_in(evaluate.output_file, folder / name) for name in RESULTS):
            problems.append(
                f"output_file: {evaluate.output_file!r} is where the results themselves go; name another file."
            )
    if problems:
        raise ArgumentsError(problems)


def _check_folder(folder: Path, overwrite: bool, retain_results: str | None) -> list[str]:
    """What is wrong with writing results to `folder`."""
    if folder.exists() and not folder.is_dir():
        return [f"output_dir: {str(folder)!r} is a file; name a folder."]
    if not _has_results(folder):
        return []
    if (folder / RECORD).exists():
        return [f"output_dir: {str(folder)!r} is a run folder with results of its own; name another one."]
    if not overwrite:
        return [f"output_dir: {str(folder)!r} holds results; --overwrite sets them aside, or name another folder."]
    if retain_results is not None and Path(retain_results).resolve() in [
        (folder / name).resolve() for name in (".", *RESULTS)
    ]:
        return [
            f"overwrite: retain_results {retain_results!r} is the result in output_dir {str(folder)!r}, which would "
            "be set aside; name another output_dir."
        ]
    return []


def _has_results(folder: Path) -> bool:
    return any((folder / name).exists() for name in (RESULT_FILE, TASKS_FILE))


def evaluate_model(arguments: EvaluationRun) -> dict[str, float]:
    """Evaluate a model, and leave its results in the folder of the run; the metrics, empty on other ranks.

    Raises:
        ValueError: for data that cannot be had or evaluated, or a model that cannot be loaded.
    """
    from unlearn_hf.cli.data import load_data, task_evaluators

    tasks_alone = not arguments.data.are_named and bool(arguments.evaluation.lm_eval_tasks)
    with importing():
        data = None if tasks_alone else load_data(arguments.data)
        from accelerate import Accelerator

        from unlearn_hf.cli.retain_results import evaluators_with_retain_results
        from unlearn_hf.models.loading import check_vocabulary, load_model, load_tokenizer
        from unlearn_hf.models.sharding import join_processes
        from unlearn_hf.report.tables import print_retain_model

    join_processes()
    evaluate = arguments.evaluate
    name = str(arguments.model.model_name_or_path)
    evaluators = (
        task_evaluators(arguments.evaluation)
        if data is None
        else evaluators_with_retain_results(
            data,
            arguments.data,
            arguments.evaluation,
            evaluate.template,
            evaluate.max_length,
            model=name,
            folders=(Path(name),),
            resume=True,
        )
    )
    if not evaluators:
        raise ValueError(
            "forget_file: rows of raw text or conversations cannot be evaluated; give question and answer."
        )
    tokenizer = load_tokenizer(arguments.model.tokenizer_name_or_path or name, evaluate.trust_remote_code)
    accelerator = Accelerator()
    folder = arguments.folder
    if accelerator.is_main_process:
        hold_folder(folder)
        if evaluate.overwrite and _has_results(folder):
            set_aside(folder, "the old results are now in", RESULTS)
    accelerator.wait_for_everyone()
    model = load_model(
        name,
        evaluate.model_dtype,
        False,
        evaluate.attn_implementation,
        evaluate.trust_remote_code,
        load_in_4bit=evaluate.load_in_4bit,
    ).to(accelerator.device)
    check_vocabulary(model, tokenizer)
    metrics: dict[str, float] = {}
    for evaluator in evaluators:
        metrics.update(evaluator(model, tokenizer, accelerator=accelerator, output_dir=folder))
        if accelerator.is_main_process:
            for pass_name, seconds in getattr(getattr(evaluator, "last_result", None), "seconds", {}).items():
                print(f"{pass_name}: {seconds:.1f} s")
    if accelerator.is_main_process:
        print_retain_model(arguments.evaluation.named_retain_results, folder)
    if accelerator.is_main_process and evaluate.output_file is not None:
        write_json(Path(evaluate.output_file), metrics)
    return metrics if accelerator.is_main_process else {}


VERB = Verb(
    run,
    "Judge a model, an adapter or a run folder, or recompute the metrics of a result file.",
    examples=(
        "unlearn-hf evaluate --model_name_or_path runs/x --retain_results runs/retain/evaluation.json",
        "unlearn-hf evaluate --config configs/tofu/eupmu.yaml --model_name_or_path M",
        "unlearn-hf evaluate --from_log eval_log_aggregated.json --retain_results retain.json --output_file out.json",
    ),
    arguments=ARGUMENTS,
)
