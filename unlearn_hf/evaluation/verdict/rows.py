"""The rows that a verdict is about, whatever their columns: a prompt, an answer, and what tells the answer apart."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from unlearn_hf.data.columns import COLUMN_SETS
from unlearn_hf.data.encoding import Template, encode_pair
from unlearn_hf.data.labels import IGNORE_INDEX

_TEXT_PROMPT, _TEXT_ANSWER = 128, 64
"""Most tokens of a text that are shown to the model, and that it is to continue with."""
_PARAPHRASES = "paraphrased_answer"
_SAID = 0.6
"""Share of its own words with which a text gives an answer away."""
_WORD = re.compile(r"\w+(?:[-.,']\w+)*")
STOP_WORDS = frozenset(Path(__file__).with_name("stop_words.txt").read_text(encoding="utf-8").split())
"""Those of scikit-learn, whose import would cost a small run a tenth of its start."""


@dataclass(frozen=True)
class JudgedRow:
    """A row as the model sees it and as a person reads it.

    Attributes:
        index: number of the row in its set.
        question: what the model is asked, as text; the beginning of a raw text.
        answer: what it should or should not say.
        prompt_ids: tokens of the prompt.
        answer_ids: tokens of the answer, the end of sequence among them.
        paraphrases: tokens of other wordings of the answer, prompt included, with their labels.
        shared_words: words that answers to keep use for similar questions, too: its wording.
        chance: how likely a model that never saw the row answers it right; 0 where no answer to keep would do.
        of_others: words of each answer to keep that says the same of somebody else, by name.
    """

    index: int
    question: str
    answer: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    paraphrases: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    shared_words: tuple[str, ...] = ()
    chance: float = 0.0
    of_others: tuple[tuple[str, ...], ...] = ()

    @staticmethod
    def words_of(text: str) -> set[str]:
        """Its words in lower case, without the ending of a possessive."""
        return {word.lower().removesuffix("'s") for word in _WORD.findall(text.replace("\u2019", "'"))}

    @functools.cached_property
    def own_words(self) -> frozenset[str]:
        """Words of the answer that neither question, nor similar answers, nor every text has: what it must bring."""
        own = self.words_of(self.answer) - self.words_of(self.question) - STOP_WORDS
        # Where similar answers have all of them, chance says how little they tell.
        return frozenset(own - set(self.shared_words) or own)

    @functools.cached_property
    def key_words(self) -> frozenset[str]:
        """Those among them that are numbers, dates or names: what a wording cannot change."""
        own = self.own_words
        # The first word of a sentence has a capital anyway, so it counts only where another follows (Ada Moren).
        inner = re.sub(r"(^|[.!?:;]\s+|\n\s*)([\"'(]*)\w+\b(?!\s+[A-Z])", r"\1\2", self.answer)
        capital = " ".join(word for word in _WORD.findall(inner) if word[0].isupper() and len(word) > 1)
        names = self.words_of(capital)
        # A single digit, like a word that every text has (May, Will), comes by chance.
        numbers = {word for word in own if len(word) > 1 and any(letter.isdigit() for letter in word)}
        return frozenset((names & own) | numbers)

    def said_in(self, text: str) -> float:
        """Share of the answer's own words that `text` says, in [0, 1]; of all its words where it has no own ones."""
        wanted = self.own_words or self.words_of(self.answer)
        return len(wanted & self.words_of(text)) / len(wanted) if wanted else 0.0

    def keys_in(self, text: str) -> list[str]:
        """The key words that `text` says, in alphabetical order."""
        return sorted(self.key_words & self.words_of(text))

    def says(self, text: str) -> bool:
        """Whether `text` has most of the answer's own words, and a key word where there are any."""
        return self.said_in(text) >= _SAID and (not self.key_words or bool(self.keys_in(text)))

    def tells_of_others(self, text: str) -> bool:
        """Whether `text` has all words of an answer to keep that says the same of somebody else."""
        words = self.words_of(text)
        return any(words.issuperset(each) for each in self.of_others)

    def passes(self, text: str) -> bool:
        """Whether `text` gives the answer away: most of its own words, or a key word."""
        return self.says(text) or bool(self.keys_in(text))


def drawn_rows(count: int, limit: int) -> list[int]:
    """At most `limit` of `count` row numbers, spread evenly by a fixed draw; the same for every run on these rows."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return sorted(order[:limit].tolist())


def judged_rows(
    encoded: Any,
    raw: Any,
    chosen: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    max_length: int,
) -> list[JudgedRow]:
    """Make rows to be judged.

    Args:
        encoded: encoded rows, with `input_ids` and `labels`.
        raw: the same rows as they were given, from which question, answer and paraphrases are read as text.
        chosen: numbers of the rows.
        tokenizer: turns tokens into text where there is none.
        template: of paraphrases.
        max_length: tokens of a paraphrase with its prompt.

    Returns:
        A row each, except for those without an answer or a prompt (texts of fewer than four tokens).
    """
    rows = []
    for index in chosen:
        ids, labels = list(encoded[index]["input_ids"]), list(encoded[index]["labels"])
        given: Mapping[str, Any] = raw[index]
        start = next((place for place, label in enumerate(labels) if label != IGNORE_INDEX), len(ids))
        continued = labels.count(IGNORE_INDEX) <= 1
        if continued:  # a text: it is continued from its middle
            start = min(len(ids) // 2, _TEXT_PROMPT)
            ids = ids[: start + _TEXT_ANSWER]
        if start == 0 or start >= len(ids):
            continue
        pair = None if continued else _pair_of(given)
        question, answer = (
            (_last_turn(pair[0]), pair[1])
            if pair is not None
            else (_text(tokenizer, ids[:start]), _text(tokenizer, ids[start:]))
        )
        others: tuple[Any, ...] = ()
        if pair is not None and given.get(_PARAPHRASES):
            texts = given[_PARAPHRASES]
            pairs = [
                encode_pair(tokenizer, template, pair[0], each, max_length)
                for each in ([texts] if isinstance(texts, str) else texts)
            ]
            others = tuple((tuple(each["input_ids"]), tuple(each["labels"])) for each in pairs)
        rows.append(JudgedRow(index, question, answer, tuple(ids[:start]), tuple(ids[start:]), others))
    return rows


def _pair_of(row: Mapping[str, Any]) -> tuple[Any, str] | None:
    """Prompt (text or turns) and answer of a row, `None` for rows that came as tokens or are raw texts."""
    columns = next((each for each in COLUMN_SETS if set(each) <= set(row)), ())
    if len(columns) == 2:
        return row[columns[0]], str(row[columns[1]])
    if columns == ("messages",):
        *turns, last = row["messages"]
        return turns, str(last["content"])
    return None


def _last_turn(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
