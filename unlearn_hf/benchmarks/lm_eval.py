"""General abilities: tasks of EleutherAI's lm-evaluation-harness (MMLU, WMDP ...) behind the evaluator interface."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from unlearn_hf.common.extras import require
from unlearn_hf.common.files import write_json
from unlearn_hf.common.registry import nearest
from unlearn_hf.evaluation import TASKS_FILE
from unlearn_hf.likelihood.one_pass import evaluating


class LmEvalEvaluator:
    """Runs tasks of lm-evaluation-harness; needs the extra `lm-eval`.

    Metrics are named `<task>_<metric>` (`mmlu_acc`, `wmdp_bio_acc`), with the filter appended where it is not "none".
    With several processes each evaluates everything, and all get the same numbers.

    Args:
        tasks: names of tasks or groups.
        limit: rows per task; by default all.
        batch_size: rows per forward pass.
        apply_chat_template: whether prompts go through the chat template of the tokenizer.
        task_folder: folder with task files (YAML) of one's own, beside those that the harness brings.

    Attributes:
        last_result: what lm-evaluation-harness returned at the last call.

    Raises:
        ValueError: when no task is named, one is unknown, or the task folder is not there.
        ImportError: when lm-evaluation-harness is not installed.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        limit: int | None = None,
        batch_size: int = 16,
        apply_chat_template: bool = False,
        task_folder: str | None = None,
    ) -> None:
        if not tasks or isinstance(tasks, str):
            raise ValueError(f"tasks: {tasks!r} is no list of task names; give for instance ['mmlu', 'wmdp_bio'].")
        require("lm_eval", "lm-eval", f"evaluation on {', '.join(tasks)}")
        if task_folder is not None and not Path(task_folder).is_dir():
            raise ValueError(f"task_folder: {task_folder!r} is no folder; check the path.")
        self.tasks = list(tasks)
        self._manager = _task_manager(tuple(tasks), task_folder)
        self.limit = limit
        self.batch_size = batch_size
        self.apply_chat_template = apply_chat_template
        self.last_result: Mapping[str, Any] | None = None

    def __call__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        accelerator: Accelerator | None = None,
        output_dir: Path | None = None,
    ) -> dict[str, float]:
        """Evaluate `model`.

        Args:
            model: a causal language model; its mode, gradients and the state of random generators stay as they are.
            tokenizer: its tokenizer; a copy is used.
            accelerator: its main process writes the file.
            output_dir: where `lm_eval.json` goes.

        Returns:
            Numbers by flat metric name.

        Raises:
            ValueError: when a task gives no number at all.
        """
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        with evaluating(model), _same_random_state():
            harness = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=self.batch_size)
            result = simple_evaluate(
                model=harness,
                tasks=self.tasks,
                task_manager=self._manager,
                limit=self.limit,
                apply_chat_template=self.apply_chat_template,
                log_samples=False,
            )
        metrics = flat_metrics(result)
        if absent := [task for task in self.tasks if not any(name.startswith(f"{task}_") for name in metrics)]:
            raise ValueError(f"tasks: lm-evaluation-harness gave no metric for {absent}; check their names.")
        self.last_result = result
        if output_dir is not None and (accelerator is None or accelerator.is_main_process):
            record = {"tasks": self.tasks, "limit": self.limit, "metrics": metrics, "versions": result.get("versions")}
            write_json(Path(output_dir) / TASKS_FILE, record)
        return metrics


@lru_cache(maxsize=4)
def _task_manager(tasks: tuple[str, ...], task_folder: str | None) -> Any:
    """What the harness knows of these tasks: the folder alone where that suffices, since its own take half a minute.

    Raises:
        ValueError: for a task that is in neither.
    """
    from lm_eval.tasks import TaskManager

    if task_folder is not None:
        manager = TaskManager(include_path=task_folder, include_defaults=False)
        if set(tasks) <= set(manager.all_tasks):
            return manager
    manager = TaskManager(include_path=task_folder)
    known = manager.all_tasks
    if unknown := [task for task in tasks if task not in known]:
        raise ValueError(
            f"tasks: lm-evaluation-harness has no {unknown[0]!r}{nearest(unknown[0], known)}; `lm_eval ls tasks` "
            "lists its own, and task_folder adds yours."
        )
    return manager


def flat_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a result of lm-evaluation-harness by flat name; standard errors are left out."""
    metrics = {}
    for part in ("results", "groups"):
        for task, values in result.get(part, {}).items():
            for key, value in values.items():
                name, _, choice = key.partition(",")
                number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
                if choice and number and not name.endswith("_stderr"):
                    metrics["_".join([task, name] + ([] if choice == "none" else [choice]))] = float(value)
    return metrics


@contextmanager
def _same_random_state() -> Iterator[None]:
    """The harness seeds every generator; training goes on with its own numbers."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
