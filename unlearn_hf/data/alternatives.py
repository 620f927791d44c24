"""Alternative answers to forget rows: a column of the rows, or refusals from a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from unlearn_hf.data.encoding import detect_columns

COLUMN = "alternative"
"""The column that is taken where rows have it and nothing else is asked for."""
_OWN_REFUSALS = Path(__file__).with_name("refusals.txt")


def read_refusals(file: str | Path | None = None) -> list[str]:
    """Refusals, one a line; empty lines are left out.

    Args:
        file: a text file; by default the sentences that come along.

    Raises:
        ValueError: when the file is not there, is no text, or holds nothing.
    """
    path = _OWN_REFUSALS if file is None else Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"refusal_file: {str(file)!r} is not there; give a text file with one refusal a line.")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"refusal_file: {str(file)!r} is not text in UTF-8.") from None
    refusals = [line for line in lines if line]
    if not refusals:
        raise ValueError(f"refusal_file: {str(file)!r} is empty; give one refusal a line.")
    return refusals


def alternative_rows(
    rows: Any, refusals: str | Path | None = None, column: str | None = None, seed: int = 0
) -> Dataset:
    """The prompts of `rows` with alternative answers in place of their own.

    A row keeps its refusal through all epochs (public code draws another at every visit), so that what the model
    before unlearning says of it is computed once. Refusals are dealt out in a seeded order, each equally often.

    Args:
        rows: forget rows, raw, or encoded ones that bring `alternative_input_ids` and `alternative_labels`.
        refusals: a file of refusals, see `read_refusals`.
        column: the column of the answers; by default `alternative` where rows have it (and no file is given), and
            otherwise refusals.
        seed: seeds which row gets which refusal.

    Returns:
        As many rows, with the columns of a prompt and its answer, or encoded.

    Raises:
        ValueError: for rows of raw text, which have no prompt, a column that is not there or has an empty answer, or
            encoded rows without an alternative.
    """
    dataset = rows if isinstance(rows, Dataset) else Dataset.from_list([dict(row) for row in rows])
    if "input_ids" in dataset.column_names:
        names = {f"{COLUMN}_{name}": name for name in ("input_ids", "labels")}
        if not names.keys() <= set(dataset.column_names):
            raise ValueError(f"forget_dataset: encoded rows need {' and '.join(names)}, or give raw ones.")
        return dataset.select_columns(list(names)).rename_columns(names)
    columns = detect_columns(dataset.column_names, "forget_dataset")
    if columns == ("text",):
        raise ValueError(
            "forget_dataset: rows of raw text have no question to answer otherwise; use another objective."
        )
    if column is None and refusals is None and COLUMN in dataset.column_names:
        column = COLUMN
    if column is not None:
        if column not in dataset.column_names:
            raise ValueError(
                f"alternative_column: the forget rows have no {column!r}, but {', '.join(dataset.column_names)}."
            )
        answers = list(dataset[column])
        for index, answer in enumerate(answers):
            if not isinstance(answer, str) or not answer.strip():
                raise ValueError(f"alternative_column: {column!r} of forget row {index} is no text, or empty.")
    else:
        sentences = read_refusals(refusals)
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
        answers = [sentences[place % len(sentences)] for place in order]
    if columns == ("messages",):
        turns = [
            [*row[:-1], {**row[-1], "content": answer}]
            for row, answer in zip(dataset["messages"], answers, strict=True)
        ]
        return Dataset.from_dict({"messages": turns})
    return Dataset.from_dict({columns[0]: list(dataset[columns[0]]), columns[1]: answers})
