"""`unlearn-hf merge`."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_hf.cli.arguments import DataArguments, ModelArguments
from unlearn_hf.cli.checks import check_evaluation_options, check_models
from unlearn_hf.cli.evaluation_arguments import EvaluateArguments, EvaluationArguments
from unlearn_hf.cli.evaluation_run import EvaluationRun, read_with_record
from unlearn_hf.cli.parsing import ArgumentsError
from unlearn_hf.cli.verbs import Verb
from unlearn_hf.common.checks import problems_of
from unlearn_hf.common.files import write_json
from unlearn_hf.common.locks import check_free, release_folder
from unlearn_hf.common.options import option
from unlearn_hf.common.run_record import RECORD, now
from unlearn_hf.models.adapter_base import check_base
from unlearn_hf.models.paths import is_adapter
from unlearn_hf.models.weights import BaseModel, base_under


@dataclass
class MergeArguments:
    """What to merge, and where the model goes"""

    output_dir: str | None = option(None, "Folder for the merged model; it must be new.")
    base_model: str | None = option(
        None, "The base model, where it is not where the adapter says; never a quantised one."
    )
    merged_dtype: str = option(
        "float32",
        "Precision of the merged weights; sums are taken in float32.",
        choices=("float32", "bfloat16", "float16"),
    )


ARGUMENTS = (MergeArguments, ModelArguments, DataArguments, EvaluationArguments)


@dataclass
class Merge:
    """What was asked for, checked: the arguments, and how both models are evaluated."""

    arguments: MergeArguments
    adapter: Path
    base: str
    evaluation: EvaluationRun

    @property
    def folder(self) -> Path:
        """Where the merged model goes."""
        return Path(self.arguments.output_dir or f"{self.adapter}_merged")


def parse(argv: Sequence[str]) -> Merge:
    """Read files, command line, and the record of the run that made the adapter, and check them.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    settings, (arguments, model, data, evaluation) = read_with_record(ARGUMENTS, argv)
    adapter = Path(str(model.model_name_or_path))
    names = ("template", "max_length", "load_in_4bit")
    options = {name: settings[name].value for name in names if name in settings}
    run = EvaluationRun(settings, EvaluateArguments(**options), model, data, evaluation)
    if not is_adapter(adapter):
        raise ValueError(
            f"model_name_or_path: {str(model.model_name_or_path)!r} is no folder of an adapter (adapter_config.json); "
            "name one."
        )
    base = arguments.base_model or base_under(str(adapter)).name
    merge = Merge(arguments, adapter, base, run)
    problems = check_models(model, evaluation) + check_evaluation_options(data, evaluation)
    problems = problems or problems_of(check_base, adapter, base)
    if merge.folder.exists() and (not merge.folder.is_dir() or any(merge.folder.iterdir())):
        problems.append(f"output_dir: {str(merge.folder)!r} is there already; name a new folder.")
    if problems:
        raise ArgumentsError(problems)
    return merge


def run(argv: Sequence[str]) -> int:
    """Merge, evaluate both, and tell the difference."""
    merge = parse(argv)
    check_free(merge.folder)
    from unlearn_hf.cli.verbs.evaluate import evaluate_model
    from unlearn_hf.models.merging import merge_adapter
    from unlearn_hf.report.tables import print_differences

    judged = merge.evaluation.data.are_named
    with _whole_folder(merge.folder, "evaluations/adapter") as folder:
        if judged:
            before = evaluate_model(_evaluation(merge, merge.adapter, folder / "evaluations/adapter"))
        merge_adapter(merge.adapter, merge.base, merge.arguments.merged_dtype, folder)
        _write_record(merge, folder)
        if judged:
            after = evaluate_model(_evaluation(merge, folder, folder))
            write_json(folder / "merge.json", {"adapter": before, "merged": after})
    print(f"merged model ({merge.arguments.merged_dtype}): {merge.folder}")
    if judged:
        print_differences(before, after, ("adapter", "merged"))
    else:
        print("not evaluated: no run.json says on what; --benchmark, or --forget_file and --retain_file, do")
    return 0


@contextmanager
def _whole_folder(path: Path, *held: str) -> Iterator[Path]:
    """A folder beside `path` to fill, which takes its place in the end; where anything fails, nothing is left of it.

    Args:
        path: absent, or an empty folder.
        *held: folders in it that are locked meanwhile, besides itself.

    Raises:
        ValueError: when something is there by then.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        for each in (*held, "."):
            release_folder(partial / each)
        try:
            if path.is_dir():
                path.rmdir()
            partial.rename(path)
        except OSError as problem:
            raise ValueError(
                f"output_dir: {str(path)!r} is there already ({problem}); name a new folder."
            ) from problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _evaluation(merge: Merge, model: Path, folder: Path) -> EvaluationRun:
    """The evaluation of the adapter, or of the merged model, by the same options."""
    own = model == merge.adapter
    given = merge.evaluation
    evaluate = dataclasses.replace(
        given.evaluate, output_dir=str(folder), load_in_4bit=own and given.evaluate.load_in_4bit
    )
    tokenizer = given.model.tokenizer_name_or_path
    return dataclasses.replace(given, evaluate=evaluate, model=ModelArguments(str(model), tokenizer))


def _write_record(merge: Merge, folder: Path) -> None:
    """A record by which `evaluate` finds data and template, and the registry of retain results the base model."""
    configuration: dict[str, Any] = {
        **dataclasses.asdict(merge.evaluation.data),
        **dataclasses.asdict(merge.evaluation.evaluation),
        "model_name_or_path": str(merge.adapter),
        "template": merge.evaluation.evaluate.template,
        "max_length": merge.evaluation.evaluate.max_length,
        **dataclasses.asdict(merge.arguments),
    }
    base = dataclasses.asdict(BaseModel.named(merge.base))
    record = {"verb": "merge", "status": "finished", "finished": now(), "configuration": configuration}
    write_json(folder / RECORD, {**record, "base_model": base})


VERB = Verb(
    run,
    "Put an adapter into its base model, and tell what that changes.",
    examples=(
        "unlearn-hf merge --model_name_or_path runs/x --merged_dtype bfloat16",
        "unlearn-hf merge --model_name_or_path runs/x --base_model models/base --output_dir runs/x_merged",
    ),
    arguments=ARGUMENTS,
)
