"""What a benchmark is: data, conventions and evaluation behind one declaration; and the registry of all of them.

The declarations are light: `list` and `--help` read them, so what is heavy is imported inside the methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from unlearn_hf.common.checks import check_choice
from unlearn_hf.common.registry import Registry

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from unlearn_hf.evaluation.logs.reading import EvaluationLog
    from unlearn_hf.evaluation.metric_value import MetricValue
    from unlearn_hf.training.evaluators import Evaluator

OWN_ROWS = "own_rows"
"""The entry that stands for files of one's own."""


@dataclass(frozen=True)
class DataChoice:
    """Which data of a benchmark are asked for.

    Attributes:
        split: what is to be forgotten, as named by the benchmark.
        source: `hub`, `mini` or a folder.
        revision: commit or tag on the hub.
        files: option -> file, for rows of one's own.
        needs_retain: whether they must have rows to keep.
    """

    split: str | None = None
    source: str = "hub"
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    needs_retain: bool = True

    def record(self) -> dict[str, Any]:
        """What the record of a run says about the choice."""
        return dict(self.files) if self.files else {"split": self.split, "source": self.source}


class Benchmark:
    """A benchmark; a subclass sets the attributes and overrides what is different for it.

    Attributes:
        summary: one line.
        paper: where it comes from.
        splits: what can be forgotten; the first is the default.
        bundled: one line on the data that come along (`--source mini`), `None` where there are none.
        hub_datasets: split -> id of the data set on the hub; the key `""` stands for every other split.
        defaults: option of the verbs -> its default for this benchmark.
        options: options of evaluation that it takes, beyond batch size and number of rows; others are refused.
        prompts: whether questions go through the prompt template.
        as_trained: whether the rows that are trained on are evaluated, with `max_forget_rows` and so on; otherwise
            always the whole sets are.
        one_target: whether a model fine-tuned on everything is the same for all splits.
        audited: `forget` and `retain` -> the sets of the per-sample table whose rows the audit asks, where they have
            other names.
        loader: `"module:function"` of split, source and revision that `load` calls.
        evaluated_by: `"module:class"` of the evaluator.
        aggregated_by: `"module:function"` of both tables and the options of `aggregate`.
    """

    summary: str = ""
    paper: str = ""
    splits: tuple[str, ...] = ()
    bundled: str | None = None
    hub_datasets: Mapping[str, str] = {}
    defaults: Mapping[str, Any] = {}
    options: tuple[str, ...] = ()
    prompts: bool = True
    as_trained: bool = False
    one_target: bool = False
    audited: Mapping[str, tuple[str, ...]] = {}
    loader: str
    evaluated_by: str
    aggregated_by: str

    def load(self, choice: DataChoice) -> Mapping[str, Any]:
        """The data: `forget` and `retain`, and whatever else evaluation needs, by name.

        Raises:
            ValueError: for a choice that does not exist, naming the field.
        """
        split = choice.split or self.splits[0]
        check_choice("split", split, self.splits)
        data: Mapping[str, Any] = resolve_name(self.loader)(split, choice.source, choice.revision)
        return data

    def training_parts(self, data: Mapping[str, Any], subset: str) -> list[str]:
        """Names of the parts that the target model (`full`) or the retain-only model (`retain`) learns."""
        return ["retain"] if subset == "retain" else ["retain", "forget"]

    def training_rows(
        self, data: Mapping[str, Any], rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Dataset:
        """Rows as they are trained on; raw text may become windows of `max_length` tokens."""
        return rows

    def evaluator(self, data: Mapping[str, Any], **settings: Any) -> Evaluator | None:
        """The evaluator of these data, `None` where they cannot be evaluated.

        Args:
            data: what `load` gave.
            **settings: `batch_size`, `max_rows`, `max_length`, `resume`, `template` if it has `prompts`, and the
                `options`.
        """
        made: Evaluator = resolve_name(self.evaluated_by)(data, **settings)
        return made

    def aggregate(
        self, samples: pd.DataFrame, retain_samples: pd.DataFrame | None, *, split: str | None = None, **options: Any
    ) -> dict[str, MetricValue]:
        """Every aggregate of a per-sample table, for logs.

        Args:
            samples: the table.
            retain_samples: the retain model's.
            split: what was forgotten, where it is said.
            **options: `protocol`, `compatibility`, `missing`, `settings` and `fingerprint`, as the log has them.
        """
        values: dict[str, MetricValue] = resolve_name(self.aggregated_by)(samples, retain_samples, **options)
        return values

    def claims(self, splits: set[str], metrics: set[str], samples: pd.DataFrame | None) -> bool:
        """Whether a log with these sets of rows, or these metrics, can only be of this benchmark."""
        return False

    def check_logs(self, log: EvaluationLog, retain_log: EvaluationLog) -> None:
        """Raise a `ValueError` unless two logs, taken as they are, can be compared."""


BENCHMARKS: Registry[Benchmark] = Registry(
    "benchmark",
    {
        "tofu": "unlearn_hf.benchmarks.tofu.benchmark:TOFU",
        "muse": "unlearn_hf.benchmarks.muse.benchmark:MUSE",
        "lume": "unlearn_hf.benchmarks.lume.benchmark:LUME",
        OWN_ROWS: "unlearn_hf.benchmarks.own_rows.benchmark:OWN",
    },
)
