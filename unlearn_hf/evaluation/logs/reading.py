"""Read an evaluation log of any kind into a per-sample table.

| kind | what |
| --- | --- |
| tofu | locuslab/tofu, NPO, SimNPO: `eval_log_aggregated.json`, or the log of one set |
| open_unlearning | `TOFU_EVAL.json`, `MUSE_EVAL.json` |
| open_unlearning_summary | `TOFU_SUMMARY.json`, `MUSE_SUMMARY.json`: aggregates only |
| unlearn_hf | `evaluation.json` with `samples.parquet` beside it, or the table alone |
| flat | the JSON of `evaluate_from_log`: aggregates only |

All may be gzipped. A folder stands for the log in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from unlearn_hf.common.files import read_json
from unlearn_hf.evaluation import RESULT_FILE
from unlearn_hf.evaluation.logs import official_tofu, open_unlearning
from unlearn_hf.evaluation.logs.checked_values import number
from unlearn_hf.evaluation.metric_value import flatten
from unlearn_hf.evaluation.metrics.catalog import is_metric
from unlearn_hf.evaluation.results import (
    is_result,
    read_result,
    read_result_samples,
    read_samples,
)
from unlearn_hf.evaluation.sample_table import OFFICIAL_ROWS, Compatibility, Missing, Protocol

PathLike = str | os.PathLike[str]
_FOLDER_FILES = (RESULT_FILE, "eval_log_aggregated.json", "TOFU_EVAL.json", "MUSE_EVAL.json")


@dataclass
class EvaluationLog:
    """One log as read.

    Attributes:
        path: where from.
        kind: see the module.
        benchmark: the one that the content names or its format belongs to; `None` where neither tells.
        samples: per-sample table, `None` where the log has aggregates only.
        logged: flat name -> aggregate as logged.
        metrics: flat names of its metrics, with or without an aggregate.
        protocol: rows it covers, as far as known.
        compatibility: framework whose definitions the plain names of this log have.
        missing: what `null` in it means, see `prepare_table`.
        record: what else a result file of ours says (settings, fingerprint ...).
    """

    path: Path
    kind: str
    benchmark: str | None
    samples: pd.DataFrame | None
    logged: dict[str, float] = field(default_factory=dict)
    metrics: frozenset[str] = frozenset()
    protocol: Protocol = "all"
    compatibility: Compatibility = None
    missing: Missing = "skip"
    record: dict[str, Any] = field(default_factory=dict)

    def table(self, purpose: str) -> pd.DataFrame:
        """The per-sample table.

        Raises:
            ValueError: if the log has aggregates only.
        """
        if self.samples is None:
            beside = " (its samples.parquet is not beside it)" if self.kind == "unlearn_hf" else ""
            raise ValueError(
                f"{self.path} holds aggregates only{beside}, but {purpose} needs values per sample. Take the log that "
                "has them: *_EVAL.json rather than *_SUMMARY.json, evaluation.json with samples.parquet."
            )
        return self.samples


def read_log(path: PathLike, split: str | None = None) -> EvaluationLog:
    """Read a log of any kind that the module lists.

    Args:
        path: the file, or a folder with one.
        split: set of a log that holds a single one, where its file name does not tell (`"forget"`, `"retain"`,
            `"real_authors"`, `"world_facts"`); other names, such as `"forget10"`, leave it to the file name.

    Raises:
        ValueError: if there is no such file, its kind is unknown (it names what was found), or its content is
            contradictory.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if path.suffix == ".parquet":
        samples = read_samples(path)
        return EvaluationLog(path, "unlearn_hf", None, samples, missing="error")
    content = read_json(path)
    try:
        return _read_content(path, content, split)
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def _read_content(path: Path, content: Any, split: str | None) -> EvaluationLog:
    if is_result(content):
        return _read_own(path)
    if official_tofu.is_tofu_log(content):
        return _tofu(path, official_tofu.read_tofu_log(content))
    if official_tofu.is_tofu_set(content):
        chosen = split if split in official_tofu.FILES.values() else official_tofu.guess_split(path.name)
        if chosen is None:
            raise ValueError(
                f"{path} is the TOFU log of one set, but its name does not tell which. Name it as the official "
                f"evaluation does ({', '.join(official_tofu.FILES)}), or pass split= as one of "
                f"{', '.join(official_tofu.FILES.values())}."
            )
        return _tofu(path, official_tofu.read_tofu_set(content, chosen, path.name))
    if _is_flat(content):
        values = {key: number(value, key) for key, value in content.items()}
        return EvaluationLog(path, "flat", None, None, values, frozenset(values))
    if open_unlearning.is_log(content):
        return _read_open_unlearning(path, content)
    what = f"keys {sorted(map(str, content))[:8]}" if isinstance(content, Mapping) else type(content).__name__
    raise ValueError(
        f"{path} is no evaluation log that is known: found {what}. Known are TOFU logs (eval_log_aggregated.json, "
        f"{', '.join(official_tofu.FILES)}), open-unlearning's TOFU_EVAL.json and MUSE_EVAL.json, and our "
        "evaluation.json."
    )


def _is_flat(content: Any) -> bool:
    """Whether this is flat JSON of ours: metric name -> number, with names that open-unlearning does not use."""
    return isinstance(content, Mapping) and any(
        is_metric(key) and open_unlearning.flat_name(key) is None and isinstance(value, (int, float))
        for key, value in content.items()
    )


def _read_folder(folder: Path) -> EvaluationLog:
    whole, sets = (
        [file for name in names for file in (folder / name, folder / f"{name}.gz") if file.is_file()]
        for names in (_FOLDER_FILES, official_tofu.FILES)
    )
    if whole:
        return read_log(whole[0])
    if sets:
        return _tofu(folder, pd.concat([read_log(file).table("this") for file in sets], ignore_index=True))
    wanted = ", ".join((*_FOLDER_FILES, *official_tofu.FILES))
    raise ValueError(f"{folder} holds no evaluation log; looked for {wanted}.")


def _tofu(path: Path, samples: pd.DataFrame) -> EvaluationLog:
    official = bool((samples["index"] < OFFICIAL_ROWS).all())
    return EvaluationLog(path, "tofu", official_tofu.BENCHMARK, samples, protocol="official" if official else "all")


def _read_own(path: Path) -> EvaluationLog:
    record, values = read_result(path)
    return EvaluationLog(
        path,
        "unlearn_hf",
        record["benchmark"],
        read_result_samples(path),
        flatten(values),
        frozenset(values),
        record["protocol"],
        record["compatibility"],
        missing="error",
        record={"settings": record.get("settings") or {}, "fingerprint": record.get("fingerprint")},
    )


def _read_open_unlearning(path: Path, content: Mapping[str, Any]) -> EvaluationLog:
    samples = open_unlearning.read_evaluation(content)
    kind = "open_unlearning" if samples is not None else "open_unlearning_summary"
    logged = open_unlearning.logged_aggregates(content)
    names = frozenset(filter(None, map(open_unlearning.flat_name, content)))
    return EvaluationLog(path, kind, None, samples, logged, names, compatibility="open_unlearning")


def read_reference_log(path: PathLike) -> EvaluationLog:
    """A retain model's log; one of a single set under a name that says nothing is taken for that of the forget set.

    Raises:
        ValueError: see `read_log`.
    """
    return read_log(path, None if official_tofu.guess_split(Path(path).name) else "forget")
