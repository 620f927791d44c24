"""From data arguments to datasets, evaluators and fingerprints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from unlearn_hf.benchmarks.base import content_fingerprint
from unlearn_hf.benchmarks.muse.data import HUB_NAMES, Corpus, MuseData, load_muse
from unlearn_hf.benchmarks.tofu.data import TofuData, load_tofu
from unlearn_hf.cli.arguments import DataArguments, EvaluationArguments, FinetuningDataArguments
from unlearn_hf.data.columns import detect_columns
from unlearn_hf.data.own_files import load_pairs, load_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from unlearn_hf.evaluation.sample_table import Protocol
    from unlearn_hf.training.finetuning import Evaluator


@dataclass
class LoadedData:
    """Datasets of a run.

    Attributes:
        datasets: by name; `forget` and `retain` among them unless one training file is all there is.
        benchmark: the benchmark's object, from which its evaluator is made.
        record: what the record of the run says about the data.
    """

    datasets: dict[str, Dataset]
    benchmark: Any = None
    record: dict[str, Any] = field(default_factory=dict)

    def part(self, name: str) -> Dataset:
        """A dataset by name.

        Raises:
            ValueError: when the benchmark's source does not have it, saying which file that would be.
        """
        return self.datasets[name] if name in self.datasets else self.benchmark[name]

    @property
    def is_muse(self) -> bool:
        """Whether these are MUSE's raw texts."""
        return isinstance(self.benchmark, MuseData)


def load_data(arguments: DataArguments) -> LoadedData:
    """Load what the arguments name.

    Raises:
        ValueError: when they name nothing, or something that is not there.
    """
    train_file = getattr(arguments, "train_file", None)
    record: dict[str, Any]
    if arguments.benchmark is None and arguments.split is not None:
        raise ValueError(f"split: {arguments.split!r} belongs to a benchmark; add --benchmark tofu (or muse).")
    if train_file is not None:
        found = LoadedData({"train": load_rows(train_file, "train_file")}, record={"train_file": train_file})
    elif arguments.benchmark == "tofu":
        assert arguments.split is not None
        tofu = load_tofu(arguments.split, source=arguments.source, revision=arguments.revision)
        record = {"benchmark": "tofu", "split": arguments.split, "source": arguments.source}
        found = LoadedData(dict(tofu), tofu, record | {"fingerprint": tofu.fingerprint})
    elif arguments.benchmark == "muse":
        if arguments.split not in HUB_NAMES:
            raise ValueError(f"split: {arguments.split!r} is not one of {', '.join(HUB_NAMES)}, which muse has.")
        muse = load_muse(cast(Corpus, arguments.split), source=arguments.source, revision=arguments.revision)
        record = {"benchmark": "muse", "split": arguments.split, "source": arguments.source}
        found = LoadedData(dict(muse), muse, record | {"fingerprint": muse.fingerprint})
    elif arguments.forget_file is None and arguments.retain_file is None:
        raise ValueError("benchmark: no data are given; use --benchmark tofu, or --forget_file and --retain_file.")
    elif arguments.forget_file is None or arguments.retain_file is None:
        missing = "forget_file" if arguments.forget_file is None else "retain_file"
        raise ValueError(f"{missing}: missing; unlearning needs rows to forget and rows to keep.")
    else:
        files = {"forget_file": arguments.forget_file, "retain_file": arguments.retain_file}
        found = LoadedData(dict(load_pairs(arguments.forget_file, arguments.retain_file)), record=dict(files))
    if arguments.forget_part is not None:
        from datasets import Dataset

        part = found.part(arguments.forget_part)
        if not isinstance(part, Dataset):
            there = [name for name, rows in found.benchmark.items() if isinstance(rows, Dataset)]
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


def as_windows(data: LoadedData, rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Rows as the benchmark trains on them: MUSE's texts in windows of `max_length` tokens, BOS among them.

    The texts of the mini corpus are short, and each is a row of its own.
    """
    if not data.is_muse or data.benchmark.source == "mini":
        return rows
    from unlearn_hf.data.text_windows import text_windows

    return text_windows(rows["text"], tokenizer, max_length - 1)


def describe_data(data: LoadedData, trained: dict[str, Dataset]) -> dict[str, Any]:
    """What the record says: source, and rows and fingerprint of what is trained on."""
    rows = {name: {"rows": len(each), "sha256": content_fingerprint(each)} for name, each in trained.items()}
    return data.record | {"trained_on": rows}


def training_rows(data: LoadedData, arguments: FinetuningDataArguments) -> Dataset:
    """The rows to fine-tune on: a file, the retain set, or retain and forget set."""
    from datasets import concatenate_datasets

    if "train" in data.datasets:
        return data.datasets["train"]
    if data.is_muse:
        names = ["train_retain1", "train_retain2", *(["train_forget"] if arguments.subset == "full" else [])]
        # The mini corpus comes with questions on its articles, because no model has learnt to answer before.
        names += [f"{name}_qa" for name in ("train_retain", names[-1]) if f"{name}_qa" in data.datasets]
        return concatenate_datasets([data.part(name) for name in names])
    names = ["retain"] if arguments.subset == "retain" else ["retain", "forget"]
    # The mini data come with the facts that their other sets ask for, because no model has learnt them before.
    names += [name for name in ("real_authors_facts", "world_facts_facts") if name in data.datasets]
    parts = [data.part(name) for name in names]
    columns = [column for column in parts[0].column_names if all(column in part.column_names for part in parts)]
    return concatenate_datasets([part.select_columns(columns) for part in parts])


def make_evaluators(
    data: LoadedData, arguments: EvaluationArguments, template: str, max_length: int, resume: bool = False
) -> list[Evaluator]:
    """The evaluators that fit the data: the benchmark's, or the general one for pairs of question and answer.

    Args:
        data: what was loaded.
        arguments: how to evaluate.
        template: prompt template.
        max_length: tokens per scored sequence.
        resume: whether an interrupted evaluation is continued.

    Returns:
        One evaluator, none for rows of raw text, conversations, or a training file; and one for the tasks of
        lm-evaluation-harness, where some are asked for.
    """
    evaluators = _data_evaluators(data, arguments, template, max_length, resume)
    if arguments.lm_eval_tasks:
        from unlearn_hf.benchmarks.lm_eval import LmEvalEvaluator

        tasks, limit = arguments.lm_eval_tasks, arguments.max_evaluation_rows
        evaluators.append(
            LmEvalEvaluator(tasks, limit, arguments.evaluation_batch_size, task_folder=arguments.lm_eval_task_folder)
        )
    return evaluators


def _data_evaluators(
    data: LoadedData, arguments: EvaluationArguments, template: str, max_length: int, resume: bool
) -> list[Evaluator]:
    settings: dict[str, Any] = {
        "template": template,
        "batch_size": arguments.evaluation_batch_size,
        "max_new_tokens": arguments.max_new_tokens,
        "max_rows": arguments.max_evaluation_rows,
        "max_length": max_length,
        "resume": resume,
    }
    compatibility: Literal["open_unlearning"] | None = None
    if arguments.compatibility == "open_unlearning":
        compatibility = "open_unlearning"
    if isinstance(data.benchmark, TofuData):
        from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator

        return [
            TofuEvaluator(
                data.benchmark,
                reference=arguments.reference,
                protocol=cast("Protocol", arguments.protocol),
                compatibility=compatibility,
                attacks=("gradient_norm",) if arguments.gradient_norm_attack else (),
                reference_model=arguments.reference_model,
                **settings,
            )
        ]
    if isinstance(data.benchmark, MuseData):
        from unlearn_hf.benchmarks.muse.evaluator import MuseEvaluator

        for name in ("template", "max_new_tokens"):  # MUSE's prompts are raw text, of lengths of their own
            del settings[name]
        return [MuseEvaluator(data.benchmark, arguments.reference, compatibility=compatibility, **settings)]
    pairs: dict[str, Any] = {name: data.datasets[name] for name in ("forget", "retain") if name in data.datasets}
    if len(pairs) == 2 and all(len(detect_columns(rows.column_names)) == 2 for rows in pairs.values()):
        from unlearn_hf.benchmarks.own_rows import PairsEvaluator

        return [PairsEvaluator(pairs, **settings)]
    return []
