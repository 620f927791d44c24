"""Rows to token ids and labels, by character offsets."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow
from datasets import Dataset, DatasetDict
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from unlearn_hf.data.columns import detect_columns
from unlearn_hf.data.labels import IGNORE_INDEX
from unlearn_hf.data.templates import ChatTemplate, Prompt, PromptTemplate

Template = PromptTemplate | ChatTemplate
_VERSION = 1  # part of the cache key of encoded rows: raise it when the encoding changes


def require_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer without character offsets.

    Raises:
        ValueError: for a slow tokenizer.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"processing_class: {type(tokenizer).__name__} gives no character offsets, by which answers are told from "
            "prompts; use a fast tokenizer (AutoTokenizer.from_pretrained(..., use_fast=True))."
        )


def special_prefix(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """What the tokenizer puts before a text (BOS, as a rule), unless `text` already begins with it.

    A tokenizer that has a BOS token but adds none (Phi's, SmolLM2's) is followed: its model was trained without.
    """
    if not tokenizer.num_special_tokens_to_add():
        return []
    encoded = tokenizer("a", return_special_tokens_mask=True)
    prefix = list(encoded["input_ids"][: encoded["special_tokens_mask"].index(0)])
    printed = "".join(tokenizer.convert_ids_to_tokens(prefix))
    return [] if text.startswith(printed) else prefix


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, template: Template, prompt: Prompt, answer: str, max_length: int = 512
) -> dict[str, list[int]]:
    """Encode one prompt with its answer.

    The whole text is tokenised once, because a prompt's own tokens need not be the first tokens of the whole: the
    answer may merge with the prompt's last characters (a trailing space, or `]` and a quote). A token belongs to the
    answer when any of its characters does, so every character of the answer is trained and scored.

    One end-of-sequence token is labelled: the one the chat template prints, or the tokenizer's, appended. What a chat
    template prints after the end of the turn is left off, since nobody generates it.

    Args:
        tokenizer: a fast tokenizer.
        template: how prompts look.
        prompt: the question, or the conversation up to the answer.
        answer: the answer.
        max_length: tokens that are kept; a longer row loses its end (and with it the end-of-sequence token).

    Returns:
        `input_ids` and `labels` (-100 on the prompt), of the same length.

    Raises:
        ValueError: when no answer token is left within `max_length`, or the tokenizer is a slow one.
    """
    require_fast(tokenizer)
    before, after = template.render(prompt, answer)
    encoded = tokenizer(before + after, add_special_tokens=False, return_offsets_mapping=True)
    ids, ends = list(encoded["input_ids"]), [end for _, end in encoded["offset_mapping"]]
    # A trailing space of the prompt belongs to the answer, with which it merges in most vocabularies: generation
    # starts without it, so where it is a token of its own the model must learn to say it.
    boundary = len(before.rstrip(" "))
    labels = [token if end > boundary else IGNORE_INDEX for token, end in zip(ids, ends, strict=True)]
    closed = False
    if isinstance(template, ChatTemplate):
        length, closed = _end_of_turn(tokenizer, ids, ends, len(before) + _end_of_answer(after, answer))
        ids, labels = ids[:length], labels[:length]
    if not closed and tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
        labels.append(tokenizer.eos_token_id)
    prefix = special_prefix(tokenizer, before)
    ids, labels = (prefix + ids)[:max_length], ([IGNORE_INDEX] * len(prefix) + labels)[:max_length]
    if all(label == IGNORE_INDEX for label in labels[1:]):
        raise ValueError(
            f"max_length: no answer token is left within {max_length} tokens of {before[:60]!r}...; raise max_length."
        )
    return {"input_ids": ids, "labels": labels}


def _end_of_answer(after: str, answer: str) -> int:
    """Where the answer ends in what follows the prompt; templates may trim it."""
    answer = answer.strip()
    found = after.find(answer)
    return found + len(answer) if found >= 0 else 0


def _end_of_turn(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: list[int], answer_end: int
) -> tuple[int, bool]:
    """How many tokens belong to the turn, and whether the last of them is a mark that ends it.

    End-of-turn marks need not be listed as special (Phi-3's `<|end|>` is not the tokenizer's EOS), but are always
    added tokens.
    """
    added = {token for token, entry in tokenizer.added_tokens_decoder.items() if entry.content.strip()}
    marks = added.union(tokenizer.all_special_ids)
    for position, (token, end) in enumerate(zip(ids, ends, strict=True)):
        if end > answer_end and token in marks:
            return position + 1, True
    inside = [position for position, end in enumerate(ends) if end <= answer_end]
    return (inside[-1] + 1 if inside else 0), False


def encode_prompt(tokenizer: PreTrainedTokenizerBase, template: Template, prompt: Prompt) -> list[int]:
    """Encode a prompt to generate from.

    A trailing space is left off: in training it belongs to the answer, merged into its first token or before it. Other
    characters stay, since they are part of the prompt whether or not an answer merges with them (`llama2` with an
    answer that begins with a quote: `]"` in training, `]` here, as in TOFU's own code).
    """
    text = template.prompt(prompt).rstrip(" ")
    return special_prefix(tokenizer, text) + tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int = 512) -> dict[str, list[int]]:
    """Encode raw text: every token but BOS is labelled, EOS included.

    Returns:
        `input_ids` and `labels`, cut to `max_length` tokens.

    Raises:
        ValueError: when the text has no tokens.
    """
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not ids:
        raise ValueError("text: it is empty, so there is nothing to learn; leave the row out.")
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    prefix = special_prefix(tokenizer, text)
    return {
        "input_ids": (prefix + ids)[:max_length],
        "labels": ([IGNORE_INDEX] * len(prefix) + ids)[:max_length],
    }


def encode_row(
    row: Mapping[str, Any],
    columns: tuple[str, ...],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    max_length: int,
) -> dict[str, list[int]]:
    """Encode a row of one of the accepted sets of columns; of `messages` the last turn is the answer.

    Raises:
        ValueError: for an empty text, an answer that does not fit, or messages that do not end with an answer.
    """
    if columns == ("text",):
        return encode_text(tokenizer, row["text"], max_length)
    if columns == ("messages",):
        *turns, last = row["messages"]
        if not turns or last["role"] != "assistant":
            raise ValueError("messages: the last turn must be the assistant's, after at least one other.")
        return encode_pair(tokenizer, template, turns, last["content"], max_length)
    return encode_pair(tokenizer, template, row[columns[0]], row[columns[1]], max_length)


def encode_dataset(
    rows: Any, tokenizer: PreTrainedTokenizerBase, template: Template, max_length: int = 512, name: str = "dataset"
) -> Dataset:
    """Encode all rows; already encoded ones (`input_ids` and `labels`) pass through.

    A dataset that lies on disk is encoded once: the result is cached by `datasets` under a fingerprint of the rows,
    the tokenizer, the template and the length.

    Args:
        rows: a `datasets.Dataset`, or a list of dicts.
        tokenizer: a fast tokenizer.
        template: how prompts look.
        max_length: tokens a row.
        name: for progress bar and errors.

    Returns:
        A dataset of `input_ids` and `labels`.

    Raises:
        ValueError: naming the dataset, for unknown columns or rows without an answer.
    """
    if isinstance(rows, DatasetDict):
        raise ValueError(f"{name}: this is a dict of splits ({', '.join(rows)}); pass one of them.")
    dataset = rows if isinstance(rows, Dataset) else _as_dataset([dict(row) for row in rows], name)
    if {"input_ids", "labels"} <= set(dataset.column_names):
        return dataset
    columns = detect_columns(dataset.column_names, name)
    require_fast(tokenizer)

    def encode(row: dict[str, Any], index: int) -> dict[str, list[int]]:
        try:
            return encode_row(row, columns, tokenizer, template, max_length)
        except ValueError as problem:
            raise RowError(name, index, str(problem)) from problem
        except (TypeError, KeyError, AttributeError) as problem:
            raise RowError(
                name, index, f"{' and '.join(columns)} must be text ({type(problem).__name__}: {problem})."
            ) from problem

    encoded = dataset.map(
        encode,
        with_indices=True,
        remove_columns=dataset.column_names,
        desc=f"Encoding {name}",
        new_fingerprint=_fingerprint(dataset, tokenizer, template, max_length),
    )
    _warn_of_cuts(
        dataset, encoded, lambda row: encode_row(row, columns, tokenizer, template, sys.maxsize), max_length, name
    )
    return encoded


def _as_dataset(rows: list[dict[str, Any]], name: str) -> Dataset:
    """Rows in memory as a dataset, with an error that names the row where they are no table of texts."""
    for number, row in enumerate(rows):
        try:
            json.dumps(row, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as problem:
            raise RowError(name, number, f"half of a surrogate pair is no text ({problem}).") from problem
    try:
        return Dataset.from_list(rows)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as problem:
        raise ValueError(
            f"{name}: a column holds values of several types ({problem}); texts are expected."
        ) from problem


class RowError(ValueError):
    """A row cannot be encoded.

    Attributes:
        dataset: name of the dataset.
        row: its number, from 0.
        reason: what is wrong with it.
    """

    def __init__(self, dataset: str, row: int, reason: str) -> None:
        self.dataset, self.row, self.reason = dataset, row, reason
        super().__init__(f"{dataset}, row {row} (from 0): {reason}")


def _warn_of_cuts(
    dataset: Dataset,
    encoded: Dataset,
    encode_whole: Callable[[dict[str, Any]], dict[str, list[int]]],
    max_length: int,
    name: str,
) -> None:
    """Say how many rows lose how many tokens to `max_length`."""
    lengths = [len(ids) for ids in encoded["input_ids"]]
    full = [row for row, length in enumerate(lengths) if length == max_length]  # whole, or cut
    lost = {row: len(encode_whole(dataset[row])["input_ids"]) - max_length for row in full}
    cut = {row: tokens for row, tokens in lost.items() if tokens > 0}
    if cut:
        worst = max(cut, key=lambda row: cut[row])
        warnings.warn(
            f"{name}: {len(cut)} of {len(lengths)} rows are longer than max_length {max_length} and lose their end, "
            f"end-of-text token included: {sum(cut.values())} tokens in all, {cut[worst]} of them in row {worst} "
            "(from 0). Raise max_length, or shorten the rows.",
            stacklevel=3,
        )


def _fingerprint(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, template: Template, max_length: int) -> str:
    """Hash what encoding depends on."""
    system_prompt = template.system_prompt if isinstance(template, ChatTemplate) else None
    parts = [_VERSION, dataset._fingerprint, max_length, tokenizer.backend_tokenizer.to_str()]
    return Hasher.hash(
        [*parts, str(tokenizer.special_tokens_map), template.name, system_prompt, tokenizer.chat_template]
    )
