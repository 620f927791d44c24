"""LUME: three kinds of text, each with sentences to complete and questions.

Ramakrishna et al., "LUME: LLM Unlearning with Multitask Evaluations", 2025, https://arxiv.org/abs/2502.15097.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from unlearn_hf.benchmarks.lume.benchmark import LUME, TASKS
from unlearn_hf.benchmarks.parts import BenchmarkData, load_from_hub, rows_file, source_folder, source_label
from unlearn_hf.common.checks import check_choice
from unlearn_hf.common.files import read_json_lines
from unlearn_hf.data.mini import MINI_LUME

_COLUMNS = ("id", "input", "output", "task")
_FORM = re.compile(r"(sc|qa)\d+$")
_SETS = ("forget", "retain")
_DOCUMENTS = ("member", "nonmember")

Rows = list[dict[str, Any]]


class LumeData(BenchmarkData):
    """LUME's rows, of all tasks or of one.

    Parts: `forget` and `retain` (`prompt`, `completion`, `id`; `task`: `task1` invented stories, `task2` invented
    people with private data, `task3` biographies of real people; `form`: `sc` a text to complete, `qa` a question);
    where the source has them `member` and `nonmember` (`id`, `text`): documents for the membership attack.
    """


def load_lume(split: str = "all", source: str | Path = "hub", revision: str | None = None) -> LumeData:
    """Load LUME.

    Args:
        split: `all` tasks, or `task1`, `task2`, `task3` alone.
        source: a folder with `forget.jsonl` and `retain.jsonl` (of LUME's repository), and for the membership attack
            `mia/member.jsonl` and `mia/nonmember.jsonl`; `hub`, the half that SemEval-2025 gave to its participants
            (its own token is needed), training and validation rows together; or `mini`, which comes along.
        revision: commit or tag on the Hub.

    Returns:
        The data, a dict of `datasets.Dataset`.

    Raises:
        ValueError: for an unknown split or source, missing files, a row of another form or with an id that does not
            end in `sc` or `qa` and a number, and rows that are to be forgotten and kept; it names file and line.
    """
    check_choice("split", split, LUME.splits)
    folder, label = source_folder(source, MINI_LUME), source_label(source, revision)
    values, absent = _from_hub(revision) if folder is None else _from_folder(folder)
    for name in _SETS:
        if name not in values:
            raise ValueError(f"{split} from {label}: {absent[name]}")
    parts = {name: _rows(values[name], split) for name in _SETS}
    _check_overlap(parts["forget"], parts["retain"], label)
    parts |= {name: _documents(values[name]) for name in _DOCUMENTS if name in values}
    return LumeData(parts, split=split, source=label, absent=absent)


def _from_folder(folder: Path) -> tuple[dict[str, list[tuple[str, Any]]], dict[str, str]]:
    """Objects of each part with where they stand, and why a part is absent."""
    values, absent = {}, {}
    for name in (*_SETS, *_DOCUMENTS):
        places = [folder / name] if name in _SETS else [folder / "mia" / name, folder / name]
        path = rows_file(*places)
        if path is None:
            absent[name] = f"{places[0]}.jsonl is missing; take it from LUME's repository."
        else:
            values[name] = [(f"{path}, line {number}", value) for number, value in read_json_lines(path)]
    return values, absent


def _from_hub(revision: str | None) -> tuple[dict[str, list[tuple[str, Any]]], dict[str, str]]:
    repository = LUME.hub_datasets[""]
    loaded, reason = load_from_hub(repository, access=" with the token that SemEval gives", revision=revision)
    values: dict[str, list[tuple[str, Any]]] = {}
    absent = dict.fromkeys(_DOCUMENTS, f"{repository} has it as a file for its own script; pass a folder.")
    for name in _SETS:
        splits = [each for each in (f"{name}_train", f"{name}_validation", name) if each in (loaded or ())]
        if not splits:
            absent[name] = reason or f"{repository} has no {name}_train, but {', '.join(loaded)}."
        else:
            values[name] = [
                (f"{repository}, {each}, row {number}", row)
                for each in splits
                for number, row in enumerate(loaded[each])
            ]
    return values, absent


def _rows(values: list[tuple[str, Any]], split: str) -> Rows:
    rows = []
    for place, value in values:
        if not isinstance(value, dict) or not all(isinstance(value.get(column), str) for column in _COLUMNS):
            found = ", ".join(value) if isinstance(value, dict) else type(value).__name__
            raise ValueError(f"{place}: text in {', '.join(_COLUMNS)} is expected; found {found}.")
        form = _FORM.search(value["id"])
        if form is None:
            raise ValueError(
                f"{place}: the id {value['id']!r} ends neither in sc and a number (a text to complete) nor in qa and "
                "a number (a question); correct it."
            )
        task = value["task"].lower()
        if task not in TASKS:
            raise ValueError(f"{place}: the task {value['task']!r} is none of {', '.join(TASKS)}.")
        if split in ("all", task):
            rows.append(
                {
                    "prompt": value["input"],
                    "completion": value["output"],
                    "id": value["id"],
                    "task": task,
                    "form": form.group(1),
                }
            )
    return rows


def _documents(values: list[tuple[str, Any]]) -> Rows:
    rows = []
    for place, value in values:
        if not isinstance(value, dict) or not isinstance(value.get("document"), str):
            raise ValueError(f"{place}: an object with text in document is expected.")
        rows.append({"id": str(value.get("id", "")), "text": value["document"]})
    return rows


def _check_overlap(forget: Rows, retain: Rows, label: str) -> None:
    kept = {(row["prompt"], row["completion"]) for row in retain}
    ids = {row["id"] for row in retain}
    both = [row["id"] for row in forget if row["id"] in ids or (row["prompt"], row["completion"]) in kept]
    if both:
        raise ValueError(
            f"forget from {label}: {len(both)} of {len(forget)} rows are in retain too, the first is {both[0]!r}; "
            "take them out of one of the two."
        )
