"""What a model that never saw a row says of it by chance: answers that other rows have, too.

A model that was never trained on the rows to forget still answers: with a job, a prize, a year of rows it does know.
Now and then that is the true one. So answers to the most similar questions among the rows to keep are looked at: how
many of them would pass for the answer to this row, and which words do they share.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unlearn_hf.evaluation.verdict.rows import JudgedRow

_SIMILAR = 20
_SHARED = 0.1
"""Share of similar answers from which on a word belongs to the wording (`was born in the year`)."""
_COMMON = 0.1
"""Chance from which on a fact is one that many rows have."""
_SIGNIFICANT = 0.05


def with_guesses(forget: Sequence[JudgedRow], keep: Sequence[tuple[str, str]]) -> list[JudgedRow]:
    """The rows to forget with `shared_words`, `chance` and `of_others`, from the rows to keep.

    `chance` is the share of answers to the most similar questions that would pass for the row's own, and no less than
    the share among all answers to keep.

    Args:
        forget: rows to forget.
        keep: question and answer of rows to keep.
    """
    if not forget or not keep:
        return list(forget)
    likeness = likenesses([row.question for row in forget], [question for question, _ in keep])
    if likeness is None:
        return list(forget)
    answers = [answer for _, answer in keep]
    found = []
    for row, like in zip(forget, likeness, strict=True):
        similar = [answers[place] for place in np.argsort(-like, kind="stable")[:_SIMILAR]]
        counts = Counter(word for answer in similar for word in row.words_of(answer))
        rarest = min((counts[word] for word in row.own_words), default=0)
        shared = sorted(word for word, count in counts.items() if count > max(1, rarest, _SHARED * len(similar)))
        row = dataclasses.replace(row, shared_words=tuple(shared))
        chance = max(np.mean([row.passes(answer) for answer in some]) for some in (similar, answers))
        others = {_words_of_another(row, answer) for answer in answers if row.passes(answer)} - {()}
        found.append(dataclasses.replace(row, chance=float(chance), of_others=tuple(sorted(others))))
    return found


def _words_of_another(row: JudgedRow, answer: str) -> tuple[str, ...]:
    """Words of an answer to keep that has a name or number which the row has not; else none."""
    told = dataclasses.replace(row, question=f"{row.question} {row.answer}", answer=answer, shared_words=())
    return tuple(sorted(row.words_of(answer))) if told.key_words else ()


def likenesses(texts: Sequence[str], known: Sequence[str]) -> NDArray[np.float64] | None:
    """Cosine of the TF-IDF vectors of texts, the words and their weights taken from `known`, shape `[n, m]`.

    What scikit-learn's `TfidfVectorizer` gives for every word, without its import before the first step.

    Args:
        texts: `n` texts.
        known: `m` texts.

    Returns:
        Nothing where no text in `known` has a word.
    """
    occurs = Counter(word for text in known for word in set(_words(text)))
    if not occurs:
        return None
    weights = {word: math.log((1 + len(known)) / (1 + count)) + 1 for word, count in occurs.items()}

    def unit(text: str) -> dict[str, float]:
        vector = {word: count * weights[word] for word, count in Counter(_words(text)).items() if word in weights}
        norm = math.hypot(*vector.values()) or 1.0
        return {word: value / norm for word, value in vector.items()}

    vectors = [unit(text) for text in known]
    return np.array(
        [
            [sum(value * vector.get(word, 0.0) for word, value in each.items()) for vector in vectors]
            for each in map(unit, texts)
        ]
    )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def by_chance(hits: Sequence[float], chances: Sequence[float]) -> list[bool]:
    """Which right answers are no surprise.

    Facts that many rows have (a tenth of similar answers) may come as often as chance gives in one of 20 cases, rarer
    ones only as often as in every second: a fact that hardly any other row has is no guess among a dozen rows.

    Args:
        hits: the chances of the rows that were right.
        chances: those of all rows that could be.
    """
    usual = {}
    for common, level in ((True, _SIGNIFICANT), (False, 0.5)):
        distribution = np.ones(1)
        for chance in chances:
            if (chance >= _COMMON) is common:
                distribution = np.convolve(distribution, [1 - chance, chance])
        found = sum((chance >= _COMMON) is common for chance in hits)
        usual[common] = bool(distribution[found:].sum() >= level)
    return [usual[chance >= _COMMON] for chance in hits]
