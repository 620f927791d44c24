"""What a model that never saw a row says of it by chance: answers that other rows have, too.

A model that was never trained on the rows to forget still answers: with a job, a prize, a year of rows it does know.
Now and then that is the true one. So answers to the most similar questions among the rows to keep are looked at: how
many of them would pass for the answer to this row, and which words do they share.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from unlearn_hf.evaluation.verdict.rows import JudgedRow

_SIMILAR = 20
_SHARED = 0.2
"""Share of similar answers from which on a word belongs to the wording (`was born in the year`)."""
_SIGNIFICANT = 0.05


def with_guesses(forget: Sequence[JudgedRow], keep: Sequence[tuple[str, str]]) -> list[JudgedRow]:
    """The rows to forget with `shared_words` and `chance`, from the rows to keep.

    `chance` is the share of answers to the most similar questions that would pass for the row's own, and no less than
    the share among all answers to keep.

    Args:
        forget: rows to forget.
        keep: question and answer of rows to keep.
    """
    if not forget or not keep:
        return list(forget)
    try:
        vectorizer = TfidfVectorizer(token_pattern=r"\w+")
        questions = vectorizer.fit_transform([question for question, _ in keep])
    except ValueError:  # no question has a word
        return list(forget)
    likeness = (vectorizer.transform([row.question for row in forget]) @ questions.T).toarray()
    answers = [answer for _, answer in keep]
    found = []
    for row, like in zip(forget, likeness, strict=True):
        similar = [answers[place] for place in np.argsort(-like, kind="stable")[:_SIMILAR]]
        counts = Counter(word for answer in similar for word in row.words_of(answer))
        shared = sorted(word for word, count in counts.items() if count > max(1, _SHARED * len(similar)))
        row = dataclasses.replace(row, shared_words=tuple(shared))
        chance = max(np.mean([row.passes(answer) for answer in some]) for some in (similar, answers))
        found.append(dataclasses.replace(row, chance=float(chance)))
    return found


def comes_by_chance(hits: int, chances: Sequence[float]) -> bool:
    """Whether `hits` right answers to rows that are right with these `chances` are no surprise (at 5 %)."""
    distribution = np.ones(1)
    for chance in chances:
        distribution = np.convolve(distribution, [1 - chance, chance])
    return bool(distribution[hits:].sum() >= _SIGNIFICANT)
