"""What the verbs check before anything is loaded: inputs must be there, and no file of the user may be lost."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearn_hf.benchmarks.base import BENCHMARKS
from unlearn_hf.cli.arguments import DataArguments, ModelArguments
from unlearn_hf.cli.evaluation_arguments import EvaluationArguments
from unlearn_hf.common.checks import problems_of
from unlearn_hf.common.extras import require
from unlearn_hf.evaluation.metrics.catalog import is_metric
from unlearn_hf.models.paths import check_classifier_path, check_model_path, check_tokenizer_path

_INPUTS = (
    "model_name_or_path",
    "tokenizer_name_or_path",
    "forget_file",
    "retain_file",
    "holdout_file",
    "train_file",
    "source",
    "retain_results",
    "attack_model",
    "fluency_model",
    "lm_eval_task_folder",
)


def check_models(
    model: ModelArguments, evaluation: EvaluationArguments, trust_remote_code: bool | None = False
) -> list[str]:
    """What is wrong with the models and retain results that are named."""
    problems: list[str] = []
    name = model.model_name_or_path
    if name is not None:
        problems += problems_of(check_model_path, name, "model_name_or_path", bool(trust_remote_code))
    if evaluation.attack_model is not None:
        problems += problems_of(check_model_path, evaluation.attack_model, "attack_model")
    if evaluation.fluency_model is not None:
        problems += problems_of(check_classifier_path, evaluation.fluency_model, "fluency_model")
    if model.tokenizer_name_or_path is not None:
        problems += problems_of(check_tokenizer_path, model.tokenizer_name_or_path)
    elif name is not None and not problems and Path(name).is_dir():
        problems += problems_of(check_tokenizer_path, name, "model_name_or_path")
    results = evaluation.named_retain_results
    if results is not None and not Path(results).exists():
        problems.append(f"retain_results: {results!r} is not there; check the path.")
    return problems


def named_inputs(*parts: Any) -> dict[str, str]:
    """The options among those of `parts` that name files or folders to read, with the names of what is there."""
    found = {name: getattr(part, name, None) for name in _INPUTS for part in parts if hasattr(part, name)}
    if found.get("source") in ("hub", "mini"):
        del found["source"]
    return {name: path for name, path in found.items() if path is not None and Path(path).exists()}


def lies_in(path: str | Path, folder: str | Path) -> bool:
    """Whether a path, or what it links to, is `folder` or something under it."""
    return any(Path(kind(path)).is_relative_to(kind(folder)) for kind in (os.path.realpath, os.path.abspath))


def check_overwrite(folder: Path, inputs: Mapping[str, str]) -> list[str]:
    """Inputs that setting `folder` aside would take away."""
    return [
        f"overwrite: {name} {path!r} lies in output_dir {str(folder)!r}, which would be set aside; name another "
        "output_dir."
        for name, path in inputs.items()
        if lies_in(path, folder)
    ]


def check_output_file(file: str, overwrite: bool, inputs: Mapping[str, str]) -> list[str]:
    """What is wrong with writing metrics to `file`.

    Args:
        file: where the metrics would go. Metrics that this program wrote there, and an empty file, may be replaced.
        overwrite: whether other files may be, as long as they are no input.
        inputs: option -> the file or folder it names; never replaced, nor anything in those folders but metrics.
    """
    path = Path(file)
    if path.is_dir():
        return [f"output_file: {file!r} is a folder; name a file."]
    above = next(each for each in path.absolute().parents if each.exists())
    if not above.is_dir():
        return [f"output_file: {file!r} cannot be made, because {str(above)!r} is a file; name another one."]
    if not path.is_file():  # new, or no file to lose but a pipe or a device
        return []
    present = {name: Path(each) for name, each in inputs.items() if Path(each).exists()}
    for name, each in present.items():
        if path.samefile(each):
            return [f"output_file: {file!r} is the file that {name} names; name another one."]
    if _is_metrics(path):
        return []
    for name, each in present.items():
        if lies_in(path, each):
            return [f"output_file: {file!r} is there already, in the folder that {name} names; name another one."]
    if not overwrite:
        return [f"output_file: {file!r} is there already; --overwrite replaces it, or name another one."]
    return []


def _is_metrics(path: Path) -> bool:
    """Whether a file is empty, or holds metrics and nothing else, to the byte as this program writes them."""
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if text else None
    except ValueError:
        return False
    if not text:
        return True
    return (
        isinstance(values, dict)
        and any(map(is_metric, values))
        and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values.values())
        and any(text == json.dumps(values, indent=indent) + "\n" for indent in (1, 2))  # 0.1 wrote both
    )


def check_evaluation_options(data: DataArguments, evaluation: EvaluationArguments) -> list[str]:
    """Options of evaluation that mean nothing for these data, and are given nevertheless."""
    folder = evaluation.lm_eval_task_folder
    problems = []
    if folder is not None and not Path(folder).is_dir():
        problems.append(f"lm_eval_task_folder: {folder!r} is no folder; check the path.")
    if evaluation.lm_eval_tasks:
        problems += problems_of(require, "lm_eval", "lm-eval", "lm_eval_tasks")
    tasks_alone = not data.are_named
    if tasks_alone and not evaluation.lm_eval_tasks:
        return problems
    subject = "rows of your own" if data.benchmark is None else f"benchmark {data.benchmark}"
    subject, options = ("tasks alone", ()) if tasks_alone else (subject, data.unit.options)
    takers: dict[str, list[str]] = {}
    for benchmark, unit in BENCHMARKS.items():
        for name in unit.options:
            takers.setdefault(name, []).append(benchmark)
    default = EvaluationArguments()
    return problems + [
        f"{name}: {getattr(evaluation, name)!r} has no effect on {subject}; leave it out. It is for "
        f"{' and '.join(takers[name])}."
        for name in takers
        if name not in options and getattr(evaluation, name) != getattr(default, name)
    ]
