"""Arguments of the command line beyond training options: plain dataclasses that need neither torch nor transformers.

The first line of each docstring is the heading under which `--help` shows the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from unlearn_hf.benchmarks.base import BENCHMARKS, OWN_ROWS, Benchmark
from unlearn_hf.common.checks import check_positive
from unlearn_hf.common.options import default_of, option

OWN_FILES = ("forget_file", "retain_file", "holdout_file", "train_file")


def _splits() -> str:
    return "; ".join(f"{name}: {', '.join(each.splits)}" for name, each in BENCHMARKS.items() if each.splits)


MEASURE = "measure"


@dataclass
class MethodArguments:
    """Method"""

    method: str | None = option(None, "Unlearning method; `unlearn-hf list` names them.")


@dataclass
class ModelArguments:
    """Model"""

    model_name_or_path: str | None = option(None, "Hub id, or folder of a model, an adapter or a run.")
    tokenizer_name_or_path: str | None = option(None, "Hub id or folder of the tokenizer; the model's own by default.")


@dataclass
class DataArguments:
    """Data: a benchmark, or two files of your own"""

    benchmark: str | None = option(None, "Benchmark that gives data and metrics.", choices=BENCHMARKS)
    split: str | None = option(
        None,
        lambda: (
            f"What is to be forgotten, the first by default; {_splits()}. With --from_log, the set of a log that "
            "does not tell: forget, retain, real_authors, world_facts."
        ),
    )
    source: str = option(
        "hub", "`hub`, `mini` (invented data that come along, offline), or a folder of the official files."
    )
    revision: str | None = option(None, "Commit or tag of the data on the hub.")
    forget_file: str | None = option(
        None, "JSON lines to forget: question/answer, prompt/completion, messages or text."
    )
    retain_file: str | None = option(None, "JSON lines to keep, likewise.")
    holdout_file: str | None = option(
        None, "JSON lines that the model has never seen, like those to forget: the verdict compares with them."
    )
    forget_part: str | None = option(
        None, "Part of the benchmark to forget instead of its forget set; `unlearn-hf list benchmarks` names some."
    )
    max_forget_rows: int | None = option(None, "Use the first rows only, for a quick try.")
    max_retain_rows: int | None = option(None, "Likewise, for training on the retain set.")

    def __post_init__(self) -> None:
        """Check the fields, and set the default split of the benchmark.

        Raises:
            ValueError: for both kinds of data at once, half of a pair of files, or a count that is not positive.
        """
        check_positive("max_forget_rows", self.max_forget_rows)
        check_positive("max_retain_rows", self.max_retain_rows)
        if self.benchmark == OWN_ROWS:
            self.benchmark = None
        if self.benchmark is not None:
            self._refuse_with_benchmark("forget_file", "retain_file", "holdout_file")
            self.split = self.split or next(iter(self.unit.splits), None)
        elif self.forget_part is not None:
            raise ValueError(f"forget_part: {self.forget_part!r} belongs to a benchmark; add --benchmark.")

    @classmethod
    def of_run(cls, configuration: Mapping[str, Any]) -> Self:
        """The data of a run, from the configuration in its record."""
        names = [item.name for item in fields(cls)]
        return cls(**{name: configuration[name] for name in names if name in configuration})

    @property
    def unit(self) -> Benchmark:
        """The entry of the registry: the benchmark, or rows of one's own."""
        return BENCHMARKS[self.benchmark or OWN_ROWS]

    @property
    def are_named(self) -> bool:
        """Whether there are any data."""
        return self.benchmark is not None or bool(self.files())

    def files(self) -> dict[str, str]:
        """The files of one's own that are named, by option."""
        found = {name: getattr(self, name, None) for name in OWN_FILES}
        return {name: file for name, file in found.items() if file is not None}

    def _refuse_with_benchmark(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} and benchmark {self.benchmark!r} exclude each other; "
                    "leave out one of them."
                )


@dataclass
class FinetuningDataArguments(DataArguments):
    """Data: a benchmark, or files of your own"""

    subset: str = option(
        "full",
        "full: forget and retain set (the target model). retain: retain set alone (the gold standard).",
        choices=("full", "retain"),
    )
    train_file: str | None = option(None, "JSON lines to learn, instead of the above.")

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: also for a training file beside other data.
        """
        super().__post_init__()
        if self.benchmark is not None:
            self._refuse_with_benchmark("train_file")
        if self.train_file is not None and (self.forget_file or self.retain_file):
            raise ValueError(f"train_file: {self.train_file!r} stands alone; leave out forget_file and retain_file.")


@dataclass
class LoraArguments:
    """Low-rank adapter"""

    use_lora: bool = option(False, "Train an adapter instead of the model.")
    lora_r: int = option(16, "Rank.")
    lora_alpha: int = option(32, "Scale; the update is multiplied by lora_alpha / lora_r.")
    lora_dropout: float = option(0.0, "Dropout before the adapter, from 0 to below 1.")
    lora_target_modules: list[str] = option(["all-linear"], "Names of the layers that get an adapter.")

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for a rank or scale that is not positive, a dropout outside [0, 1), no layers, or any of
                them without `use_lora`.
        """
        check_positive("lora_r", self.lora_r)
        check_positive("lora_alpha", self.lora_alpha)
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout: {self.lora_dropout} is not in [0, 1).")
        if not self.lora_target_modules:
            raise ValueError("lora_target_modules: the list is empty; name layers, or `all-linear`.")
        for item in [] if self.use_lora else fields(self):
            if getattr(self, item.name) != default_of(item):
                raise ValueError(
                    f"{item.name}: {getattr(self, item.name)!r} has no effect without an adapter; add --use_lora, or "
                    "leave it out."
                )


@dataclass
class RequestArguments:
    """Requests, one after the other"""

    continue_from: str | None = option(
        None,
        "Folder of a finished unlearning run: begin with its model, judge its requests again, and carry "
        "on the ledger.",
    )
    request_id: str | None = option(None, "Name of this request in the ledger; that of the run folder by default.")
    allow_repeated_request: bool = option(False, "Forget the rows of an earlier request once more.")

    def __post_init__(self) -> None:
        """Raise a `ValueError` for an empty name, or a repetition of nothing."""
        if self.request_id is not None and not self.request_id.strip():
            raise ValueError("request_id: it is empty; give a name, or leave it out.")
        if self.allow_repeated_request and self.continue_from is None:
            raise ValueError("allow_repeated_request: True needs a run to continue; add --continue_from.")


@dataclass
class RunArguments:
    """Run folder"""

    final_evaluation: bool = option(True, "Evaluate the model that comes out.")
    resume: bool = option(False, "Continue in the run folder from its newest complete checkpoint.")
    overwrite: bool = option(False, "Begin afresh; the old folder is kept beside it as NAME.backup-1, -2, ...")
    keep_checkpoints: bool = option(
        False, "Leave the last checkpoints in the folder of a finished run, so that it can be trained on."
    )
    fail_unless_forgotten: bool = option(
        False, "End with status 3 unless the verdict says that everything was forgotten."
    )

    dry_run: bool | str = option(
        False,
        "Say what the run would do (rows, steps, memory, disk, an example), and write nothing. measure: "
        "also time a step.",
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: for resume together with overwrite, or an unknown kind of dry run.
        """
        if self.dry_run not in (True, False, MEASURE):
            raise ValueError(f"dry_run: {self.dry_run!r} is not known; give nothing, or {MEASURE!r}.")
        if self.resume and self.overwrite:
            raise ValueError("resume: True and overwrite: True exclude each other; leave out one of them.")
