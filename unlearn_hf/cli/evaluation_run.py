"""What `evaluate` and `merge` were asked for, with what the record of the run that made the model adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_hf.cli.arguments import DataArguments, ModelArguments
from unlearn_hf.cli.evaluation_arguments import EvaluateArguments, EvaluationArguments
from unlearn_hf.cli.option_names import all_fields
from unlearn_hf.cli.parsing import (
    Settings,
    add_benchmark_defaults,
    add_unless_given,
    build,
    collect_settings,
    field_names,
    word_of,
)
from unlearn_hf.common.run_record import RECORD, read_record, run_of
from unlearn_hf.models.paths import is_adapter

# Data options of a run that mean nothing once another one is given differently.
_BELONGS_TO = {
    "revision": "source",
    "forget_part": "split",
    "max_forget_rows": "forget_file",
    "max_retain_rows": "retain_file",
}


@dataclass
class EvaluationRun:
    """Everything that was asked for, checked."""

    settings: Settings
    evaluate: EvaluateArguments
    model: ModelArguments
    data: DataArguments
    evaluation: EvaluationArguments

    @property
    def folder(self) -> Path:
        """Where results go: `output_dir`, or a folder inside the model's."""
        if self.evaluate.output_dir is not None:
            return Path(self.evaluate.output_dir)
        model = Path(str(self.model.model_name_or_path))
        name = "_".join([self.data.benchmark or "own", *([self.data.split] if self.data.split else [])])
        return model / "evaluations" / name if model.is_dir() else Path("runs") / f"{name}_{model.name}_evaluation"


def read_with_record(classes: Sequence[type], argv: Sequence[str]) -> tuple[Settings, list[Any]]:
    """Settings from files, command line and the record of the run that made the model, and an instance of each class.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    known = all_fields()
    settings, problems = collect_settings(argv, known)
    model = word_of(settings, "model_name_or_path")
    if model is not None and "from_log" not in settings:
        inherit(settings, Path(model))
    add_benchmark_defaults(settings)
    # The files of a training run describe its data too; what else they say has no meaning here.
    return settings, build(classes, settings, problems, ignored=known)


def inherit(settings: Settings, folder: Path) -> None:
    """Take data and template from the record of the run in `folder`, or of the run whose checkpoint it is.

    What is given wins; the rest of the run's data are taken as long as they are of the same benchmark.
    """
    home = run_of(folder)
    if home is None:
        return
    recorded = read_record(home).get("configuration", {})
    given = {name: word_of(settings, name) for name in field_names([DataArguments])}
    changed = {name for name, word in given.items() if word is not None and word != str(recorded.get(name))}
    own = given["forget_file"] is not None or given["retain_file"] is not None
    benchmark = None if own else given["benchmark"] or recorded.get("benchmark")
    names = ["tokenizer_name_or_path", "template"]
    if is_adapter(folder) and recorded.get("load_in_4bit"):
        names.append("load_in_4bit")
    if benchmark == recorded.get("benchmark"):
        names += ["max_length", *(name for name in given if _BELONGS_TO.get(name) not in changed)]
        recorded.setdefault("retain_results", recorded.get("reference"))  # its name in 0.1
        results = recorded["retain_results"]
        if benchmark and results and Path(results).exists() and not changed & {"split", "source", "revision"}:
            names.append("retain_results")
    add_unless_given(settings, {name: recorded.get(name) for name in names}, str(home / RECORD))
