"""What `unlearn` and `finetune` share: checks before anything is loaded, training, judgement, run folder."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_hf.cli.arguments import MEASURE
from unlearn_hf.cli.checks import check_evaluation_options, check_models, check_overwrite, named_inputs
from unlearn_hf.cli.continuing import ledger_of
from unlearn_hf.cli.data import LoadedData, describe_data, naming_lines
from unlearn_hf.cli.parsing import COMMAND_LINE, ArgumentsError
from unlearn_hf.cli.resuming import check_same_rows, check_same_run
from unlearn_hf.cli.run_folder import check_run_folder, set_aside
from unlearn_hf.cli.training_run import TrainingRun
from unlearn_hf.common.checks import problems_of
from unlearn_hf.common.locks import check_free, hold_folder
from unlearn_hf.common.run_record import RECORD, RunRecord, changed_settings, read_record
from unlearn_hf.common.terminal import is_main_process, wrapped
from unlearn_hf.models.paths import is_adapter
from unlearn_hf.models.weights import BaseModel, base_under
from unlearn_hf.report.tables import print_metrics
from unlearn_hf.training.checkpoints import METHOD_STATE_FILE, checkpoints, newest_complete_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from unlearn_hf.cli.earlier_requests import EarlierRequests
    from unlearn_hf.evaluation.verdict.facts import Verdict
    from unlearn_hf.training.finetuning import FinetuningTrainer

DIVERGED = 1
NOT_FORGOTTEN = 3


def check_before_loading(run: TrainingRun) -> None:
    """Look at what can be seen without loading anything, and take hold of the run folder.

    Raises:
        ArgumentsError: listing everything that is missing or in the way.
        ValueError: when another process works in the run folder.
    """
    main = is_main_process()
    if main:
        check_free(run.folder)  # of a folder in use nothing else matters
    problems = check_inputs(run)
    if main:
        problems += problems_of(check_run_folder, run.folder, run.run.overwrite, run.run.resume)
        if run.run.overwrite:
            problems += check_overwrite(run.folder, named_inputs(run.model, run.data, run.evaluation))
    if run.run.resume and run.folder.is_dir():
        problems += problems_of(newest_complete_checkpoint, run.folder, (METHOD_STATE_FILE,) if run.method else ())
        problems += check_same_run(run)
    if problems:
        raise ArgumentsError(problems)
    if main and not run.run.dry_run:
        hold_folder(run.folder)
        # Another run may have come and gone since the first look.
        check_run_folder(run.folder, run.run.overwrite, run.run.resume)


def check_inputs(run: TrainingRun) -> list[str]:
    """What is wrong with models and options, the run folder aside."""
    parent = run.request.continue_from
    if parent is not None and (problems := problems_of(ledger_of, Path(parent))):
        return problems  # of its model nothing else matters
    problems = []
    if run.model.model_name_or_path is None:
        problems.append("model_name_or_path: missing; give a hub id or a folder.")
    problems += check_models(run.model, run.evaluation, run.training.trust_remote_code)
    problems += check_evaluation_options(run.data, run.evaluation)
    if run.run.fail_unless_forgotten and getattr(run.training, "verdict", None) is False:
        problems.append("fail_unless_forgotten: True needs the verdict; leave out --verdict false.")
    if run.run.fail_unless_forgotten and run.method is None:
        problems.append("fail_unless_forgotten: True has no meaning for finetune; leave it out.")
    if run.lora.use_lora and is_adapter(str(run.model.model_name_or_path)):
        problems.append(
            f"use_lora: {run.model.model_name_or_path!r} is an adapter already, which is trained further; leave out "
            "--use_lora."
        )
    return problems


def checked_tokenizer(run: TrainingRun, data: LoadedData, trained: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Look at what only the defaults of training and the rows can tell of a run that is continued; its tokenizer.

    Args:
        run: what was asked for, defaults filled in.
        data: as loaded.
        trained: the datasets that are trained on, by name.

    Raises:
        ArgumentsError: when the run was begun with other options or rows.
        ValueError: for a tokenizer that cannot be loaded.
    """
    from unlearn_hf.models.loading import load_tokenizer

    if run.run.resume:  # rows first, because defaults follow from them
        check_same_rows(run, describe_data(data, dict(trained))["trained_on"])
    if problems := check_same_run(run, rows_known=True):
        raise ArgumentsError(problems)
    name = run.model.tokenizer_name_or_path or run.model.model_name_or_path
    assert name is not None
    return load_tokenizer(name, run.training.trust_remote_code)


def tell_dry_run(
    run: TrainingRun, rows: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, method: type[Any] | None = None
) -> int:
    """Say what a run over `rows` by set would do; returns the exit status.

    Raises:
        ValueError: for what the run itself would refuse before its first step.
    """
    from unlearn_hf.training.dry_run import BEGINS, ENDS, dry_run

    name, measure = str(run.model.model_name_or_path), run.run.dry_run == MEASURE
    with naming_lines(run.data):
        example = dry_run(name, run.training, rows, tokenizer, method, run.peft_config, measure)
    print("\nsettings:")
    for name, setting in run.settings.items():
        if name != "dry_run":
            origin = "" if setting.origin == COMMAND_LINE else f"  ({setting.origin})"
            print(f"  {name} {' '.join(setting.words)}{origin}")
    print(f"\nan example as the model sees it, what is trained between {BEGINS} and {ENDS}:\n{example}")
    return 0


def train_and_judge(
    run: TrainingRun,
    trainer: FinetuningTrainer,
    data: LoadedData,
    trained: dict[str, Any],
    method: type[FinetuningTrainer] | None = None,
    earlier: EarlierRequests | None = None,
) -> int:
    """Train, evaluate, and fill the run folder.

    Args:
        run: what was asked for.
        trainer: ready to train.
        data: as loaded.
        trained: the datasets that are trained on, by name.
        method: the trainer class of the method, for the model card.
        earlier: requests that the model has behind it, where it was continued.

    Returns:
        The exit status.
    """
    from unlearn_hf.training.evaluators import bring_results_up
    from unlearn_hf.training.termination import ending_on_signals

    main = trainer.is_world_process_zero()
    folder = run.folder
    record = RunRecord(
        folder,
        run.verb,
        run.given(),
        run.configuration(),
        describe_data(data, trained) if main else {},
        {"device": str(trainer.args.device), "processes": trainer.args.world_size},
    )
    if main:
        record.content["model"] = asdict(BaseModel.named(str(run.model.model_name_or_path)))
        record.content["base_model"] = asdict(base_under(str(run.model.model_name_or_path)))
        _open_folder(folder, run, record)
        for line in earlier.not_measured if earlier is not None else []:
            print(line)
    trainer.accelerator.wait_for_everyone()
    try:
        with ending_on_signals(trainer):
            found, verdict = _train(run, trainer, earlier)
    except KeyboardInterrupt as problem:
        if main:
            record.finish("interrupted")
        raise KeyboardInterrupt(_how_to_go_on(folder, trainer)) from problem
    except BaseException as problem:
        if main:
            try:
                record.finish("failed", problem=f"{type(problem).__name__}: {problem}")
            except OSError as other:  # a full disk; the first problem is the one to be told
                print(f"not written: {folder / RECORD} ({other})", file=sys.stderr)
        raise
    if main:
        bring_results_up(folder, trainer.state.global_step)
        if earlier is not None and not found["divergence"]:
            earlier.write(record.content["data"]["trained_on"])
        record.finish("diverged" if found["divergence"] else "finished", **found)
        if not (run.run.keep_checkpoints or found["divergence"]):
            for path in checkpoints(folder):
                shutil.rmtree(path, ignore_errors=True)
        from unlearn_hf.report.model_card import write_model_card

        write_model_card(folder, record.content, method, verdict)
        print_metrics(found["metrics"])
        if found["stopped"]:
            print(wrapped(f"stopped at {found['stopped']}"))
        if verdict is not None:
            from unlearn_hf.report.verdict import print_verdict

            print_verdict(verdict)
        for line in earlier.sentences() if earlier is not None else []:
            print(line)
        print(f"run folder: {folder}")
    if found["divergence"]:
        return DIVERGED
    forgotten = verdict is not None and verdict.forgotten == "yes"
    forgotten = forgotten and (earlier is None or earlier.all_forgotten)
    return NOT_FORGOTTEN if run.run.fail_unless_forgotten and not forgotten else 0


def _how_to_go_on(folder: Path, trainer: FinetuningTrainer) -> str:
    """What an interrupted user can do."""
    try:
        checkpoint = newest_complete_checkpoint(folder, trainer.checkpoint_files)
    except ValueError:
        return "there was no checkpoint yet; the same command with --overwrite begins afresh"
    return f"the same command with --resume continues from {checkpoint.name}"


def _train(
    run: TrainingRun, trainer: FinetuningTrainer, earlier: EarlierRequests | None
) -> tuple[dict[str, Any], Verdict | None]:
    """Train, save, evaluate; returns what the record says about it, and the verdict."""
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=run.run.resume or None)
    seconds = {"training": round(time.perf_counter() - start, 1)}
    trainer.save_model()
    divergence = trainer.divergence
    verdict = _verdict(trainer, divergence)
    if earlier is not None and divergence is None:
        earlier.judge(trainer)
    metrics: dict[str, float] = {}
    if run.run.final_evaluation:
        start = time.perf_counter()
        try:
            metrics = _final_metrics(trainer.evaluate())
        except ValueError as problem:
            if divergence is None:
                raise
            print(f"not evaluated: {problem}")
        seconds["evaluation"] = round(time.perf_counter() - start, 1)
    trainer.save_state()
    return {
        "divergence": divergence,
        "ended": getattr(trainer, "ended", None),
        "stopped": getattr(getattr(trainer, "stop_rule", None), "outcome", None),
        "retain_budget_spent": getattr(getattr(trainer, "retain_budget", None), "exceeded", None),
        "seconds": seconds,
        "metrics": metrics,
        "verdict": verdict and {"forgotten": verdict.forgotten, "kept": verdict.kept},
    }, verdict


def _verdict(trainer: FinetuningTrainer, divergence: str | None) -> Verdict | None:
    """The verdict, where the trainer makes one and the weights allow it."""
    run_verdict = getattr(trainer, "run_verdict", None)
    if run_verdict is None or run_verdict.judge is None:
        return None
    if run_verdict.judge.before is None:
        if trainer.is_world_process_zero():
            print("no verdict: the run that was resumed has not measured the model before unlearning")
        return None
    try:
        found: Verdict = run_verdict.finish(trainer._model_for_evaluation())
        return found
    except ValueError as problem:
        if divergence is None:
            raise
        print(f"no verdict: {problem}")
        return None


def _open_folder(folder: Path, run: TrainingRun, record: RunRecord) -> None:
    if run.run.resume:
        for change in changed_settings(read_record(folder), record.content["configuration"]):
            print(f"resuming with a change: {change}")
    elif run.run.overwrite:
        set_aside(folder, "the old run folder is now")
    record.write()


def _final_metrics(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics by their own names, without the trainer's prefix and what the loop measures of itself."""
    counters = ("_runtime", "_per_second", "epoch")
    return {name.removeprefix("eval_"): value for name, value in metrics.items() if not name.endswith(counters)}
