"""From data arguments to datasets, evaluators and fingerprints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_hf.benchmarks.base import Benchmark, DataChoice
from unlearn_hf.benchmarks.parts import content_fingerprint
from unlearn_hf.cli.arguments import DataArguments, FinetuningDataArguments
from unlearn_hf.cli.evaluation_arguments import EvaluationArguments
from unlearn_hf.common.files import read_json_lines

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from unlearn_hf.training.evaluators import Evaluator


@dataclass
class LoadedData:
    """Datasets of a run.

    Attributes:
        datasets: by name; `forget` and `retain` among them unless one training file is all there is.
        benchmark: the entry of the registry that they belong to.
        parts: what it loaded, from which its evaluator is made.
        record: what the record of the run says about the data.
    """

    datasets: dict[str, Dataset]
    benchmark: Benchmark
    parts: Mapping[str, Any]
    record: dict[str, Any] = field(default_factory=dict)

    def part(self, name: str) -> Dataset:
        """A dataset by name.

        Raises:
            ValueError: when the benchmark's source does not have it, saying which file that would be.
        """
        return self.datasets[name] if name in self.datasets else self.parts[name]

    def as_trained(self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
        """Rows as the benchmark trains on them."""
        return self.benchmark.training_rows(self.parts, rows, tokenizer, max_length)


def load_data(arguments: DataArguments, needs_retain: bool = True) -> LoadedData:
    """Load what the arguments name.

    Args:
        arguments: what is asked for.
        needs_retain: whether files of one's own must have rows to keep.

    Raises:
        ValueError: when they name nothing, or something that is not there.
    """
    benchmark = arguments.unit
    choice = DataChoice(arguments.split, arguments.source, arguments.revision, arguments.files(), needs_retain)
    parts = benchmark.load(choice)
    record = choice.record()
    if arguments.benchmark is not None:
        record = {"benchmark": arguments.benchmark, **record, "fingerprint": getattr(parts, "fingerprint", None)}
    found = LoadedData(dict(parts), benchmark, parts, record)
    if arguments.forget_part is not None:
        from datasets import Dataset

        part = found.part(arguments.forget_part)
        if not isinstance(part, Dataset):
            there = [name for name, rows in found.parts.items() if isinstance(rows, Dataset)]
            raise ValueError(
                f"forget_part: {arguments.forget_part!r} holds no rows to train on; name one of {', '.join(there)}."
            )
        found.datasets["forget"] = part
        found.record["forget_part"] = arguments.forget_part
    for name, limit in (("forget", arguments.max_forget_rows), ("retain", arguments.max_retain_rows)):
        if limit is not None and name in found.datasets:
            rows = found.datasets[name]
            found.datasets[name] = rows.select(range(min(limit, len(rows))))
    return found


@contextlib.contextmanager
def naming_lines(arguments: DataArguments) -> Iterator[None]:
    """Name file and line where a row of a file cannot be encoded."""
    from unlearn_hf.data.encoding import RowError

    try:
        yield
    except RowError as problem:
        option = problem.dataset.replace("_dataset", "_file")
        file = arguments.files().get(option)
        if file is None:
            raise
        line = read_json_lines(Path(file).expanduser())[problem.row][0]
        raise ValueError(f"{option}: {file}, line {line}: {problem.reason}") from problem


def describe_data(data: LoadedData, trained: dict[str, Dataset]) -> dict[str, Any]:
    """What the record says: source, and rows and fingerprint of what is trained on."""
    rows = {
        name: {"rows": len(each), "columns": list(each.column_names), "sha256": content_fingerprint(each)}
        for name, each in trained.items()
    }
    return data.record | {"trained_on": rows}


def training_rows(data: LoadedData, arguments: FinetuningDataArguments) -> Dataset:
    """The rows to fine-tune on, with the columns that all of their parts have."""
    from datasets import concatenate_datasets

    parts = [data.part(name) for name in data.benchmark.training_parts(data.datasets, arguments.subset)]
    columns = [column for column in parts[0].column_names if all(column in part.column_names for part in parts)]
    return concatenate_datasets([part.select_columns(columns) for part in parts])


def make_evaluators(
    data: LoadedData, arguments: EvaluationArguments, template: str, max_length: int, resume: bool = False
) -> list[Evaluator]:
    """The benchmark's evaluator, and one for the tasks of lm-evaluation-harness, where some are asked for.

    Args:
        data: what was loaded.
        arguments: how to evaluate.
        template: prompt template.
        max_length: tokens per scored sequence.
        resume: whether an interrupted evaluation is continued.

    Returns:
        None of the former for rows of raw text, conversations, or a training file.

    Raises:
        ValueError: for a generation backend where nothing is generated by us.
    """
    batch_size, limit = arguments.evaluation_batch_size, arguments.max_evaluation_rows
    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "max_rows": limit,
        "max_length": max_length,
        "resume": resume,
        **({"template": template} if data.benchmark.prompts else {}),
        **{name: getattr(arguments, name) for name in data.benchmark.options},
    }
    if "retain_results" in settings:
        settings["retain_results"] = arguments.named_retain_results
    if settings.get("compatibility") == "unlearn_hf":
        settings["compatibility"] = None
    rows = data.datasets if data.benchmark.as_trained else data.parts
    evaluator = data.benchmark.evaluator(rows, **settings)
    if arguments.generation_backend != EvaluationArguments.generation_backend:
        from unlearn_hf.evaluation.evaluator import TableEvaluator

        if not isinstance(evaluator, TableEvaluator):
            raise ValueError(
                f"generation_backend: {arguments.generation_backend!r} has no effect on the evaluation of these data; "
                "leave it out."
            )
        evaluator.engine = replace(evaluator.engine, generation_backend=arguments.generation_backend)
    evaluators = [] if evaluator is None else [evaluator]
    return evaluators + task_evaluators(arguments)


def task_evaluators(arguments: EvaluationArguments) -> list[Evaluator]:
    """The evaluator for the tasks of lm-evaluation-harness that are asked for, if any.

    Raises:
        ValueError: for an unknown task, or a folder that is not there.
    """
    if not arguments.lm_eval_tasks:
        return []
    from unlearn_hf.benchmarks.lm_eval import LmEvalEvaluator

    return [
        LmEvalEvaluator(
            arguments.lm_eval_tasks,
            arguments.max_evaluation_rows,
            arguments.evaluation_batch_size,
            task_folder=arguments.lm_eval_task_folder,
        )
    ]
