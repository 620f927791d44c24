"""Rows to token ids and labels, by character offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from unlearn_hf.data.templates import ChatTemplate, PromptTemplate
from unlearn_hf.likelihood import IGNORE_INDEX

Template = PromptTemplate | ChatTemplate
COLUMN_SETS = (("question", "answer"), ("prompt", "completion"), ("messages",), ("text",))


def detect_columns(column_names: Sequence[str], name: str = "dataset") -> tuple[str, ...]:
    """Find which of the accepted sets of columns a dataset has.

    Raises:
        ValueError: naming the columns found and those accepted.
    """
    for columns in COLUMN_SETS:
        if set(columns) <= set(column_names):
            return columns
    accepted = "; ".join(" and ".join(columns) for columns in COLUMN_SETS)
    raise ValueError(f"{name}: columns {', '.join(column_names) or 'none'} do not fit; accepted are {accepted}.")


def _require_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise ValueError(
            f"processing_class: {type(tokenizer).__name__} gives no character offsets; use a fast tokenizer."
        )


def _special_prefix(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The BOS token, unless the tokenizer has none, does not use it, or the text begins with it."""
    bos = tokenizer.bos_token_id
    if bos is None or text.startswith(tokenizer.bos_token or "\0"):
        return []
    probe = tokenizer("a", add_special_tokens=True)["input_ids"]
    return [bos] if probe and probe[0] == bos else []


def encode_pair(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    prompt: str | Sequence[Mapping[str, str]],
    answer: str,
    max_length: int = 512,
) -> dict[str, list[int]]:
    """Encode one prompt with its answer.

    The whole text is tokenised once. A token belongs to the answer when any of its characters does, so an answer that
    merges with the template's trailing space is trained and scored in full. One end-of-sequence token is labelled:
    the one the chat template prints, or the tokenizer's, appended.

    Returns:
        `input_ids` and `labels` (-100 on the prompt, and after the end of the turn).

    Raises:
        ValueError: when no answer token is left within `max_length`, or the tokenizer is a slow one.
    """
    _require_fast(tokenizer)
    before, after = template.render(prompt, answer)
    text = before + after
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    labels = [token if end > len(before) else IGNORE_INDEX for token, (_, end) in zip(ids, offsets, strict=True)]
    if isinstance(template, ChatTemplate):
        # Templates often print a newline after the end of the turn: nobody generates it, so nothing is learnt there.
        end_of_answer = len(before) + after.rindex(answer) + len(answer) if answer in after else len(before)
        closing = [i for i, (start, _) in enumerate(offsets) if start >= end_of_answer]
        special = next((i for i in closing if ids[i] in tokenizer.all_special_ids), None)
        if special is not None:
            labels[special + 1 :] = [IGNORE_INDEX] * (len(ids) - special - 1)
    elif tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
        labels.append(tokenizer.eos_token_id)
    prefix = _special_prefix(tokenizer, text)
    ids, labels = (prefix + ids)[:max_length], ([IGNORE_INDEX] * len(prefix) + labels)[:max_length]
    if all(label == IGNORE_INDEX for label in labels[1:]):
        raise ValueError(
            f"max_length: no answer token is left within {max_length} tokens of {before[:60]!r}...; raise max_length."
        )
    return {"input_ids": ids, "labels": labels}


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, template: Template, prompt: str | Sequence[Mapping[str, str]]
) -> list[int]:
    """Encode a prompt to generate from.

    A trailing space is left off: in training it was merged into the first token of the answer.
    """
    before, _ = template.render(prompt, "")
    text = before if isinstance(template, ChatTemplate) else before.rstrip(" ")
    return _special_prefix(tokenizer, text) + tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int = 512) -> dict[str, list[int]]:
    """Encode raw text: every token but BOS is labelled, EOS included."""
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    prefix = _special_prefix(tokenizer, text)
    return {
        "input_ids": (prefix + ids)[:max_length],
        "labels": ([IGNORE_INDEX] * len(prefix) + ids)[:max_length],
    }


def encode_dataset(
    rows: Any, tokenizer: PreTrainedTokenizerBase, template: Template, max_length: int = 512, name: str = "dataset"
) -> Dataset:
    """Encode all rows; already encoded ones (`input_ids` and `labels`) pass through.

    Args:
        rows: a `datasets.Dataset`, or a list of dicts.
        tokenizer: a fast tokenizer.
        template: how prompts look.
        max_length: tokens a row.
        name: for progress bar and errors.

    Raises:
        ValueError: naming the dataset, for unknown columns or rows without an answer.
    """
    dataset = rows if isinstance(rows, Dataset) else Dataset.from_list([dict(row) for row in rows])
    if {"input_ids", "labels"} <= set(dataset.column_names):
        return dataset
    columns = detect_columns(dataset.column_names, name)

    def encode(row: dict[str, Any], index: int) -> dict[str, list[int]]:
        try:
            if columns == ("text",):
                return encode_text(tokenizer, row["text"], max_length)
            if columns == ("messages",):
                *turns, last = row["messages"]
                return encode_pair(tokenizer, template, turns, last["content"], max_length)
            return encode_pair(tokenizer, template, row[columns[0]], row[columns[1]], max_length)
        except ValueError as problem:
            raise ValueError(f"{name}, row {index}: {problem}") from problem

    return dataset.map(encode, with_indices=True, remove_columns=dataset.column_names, desc=f"Encoding {name}")
