"""Which tokens of an answer say something that its question does not."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import PreTrainedTokenizerBase

from unlearn_hf.data.encoding import require_fast
from unlearn_hf.data.labels import IGNORE_INDEX

_WORD = r"\w+"
_VERSION = 1  # part of the cache key: raise it when the rule changes


def with_new_words(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, name: str) -> Dataset:
    """Encoded rows whose labels are those of `new_word_labels`.

    Args:
        dataset: encoded rows (`input_ids`, `labels`).
        tokenizer: a fast tokenizer, theirs.
        name: for the progress bar and errors.

    Raises:
        ValueError: for a slow tokenizer.
    """
    require_fast(tokenizer)

    def relabel(row: dict[str, Any]) -> dict[str, list[int]]:
        return {"labels": new_word_labels(row["input_ids"], row["labels"], tokenizer)}

    key = Hasher.hash([_VERSION, dataset._fingerprint, tokenizer.backend_tokenizer.to_str()])
    found = dataset.map(relabel, desc=f"Looking for new words in {name}", new_fingerprint=key)
    if all(new == old for new, old in zip(found["labels"], dataset["labels"], strict=True)):
        warnings.warn(
            f"{name}: no answer loses a word to forget_tokens 'new_words', because none repeats a word of its "
            "question (raw texts have no question); all are trained whole.",
            stacklevel=2,
        )
    return found


def new_word_labels(ids: Sequence[int], labels: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Labels without the words of an answer that stand in its prompt, too, case aside.

    What the prompt gives away need not be forgotten, and a model that garbles a name can still say the fact.
    Punctuation and the end of the text keep their labels.

    Args:
        ids: tokens of prompt and answer.
        labels: -100 on the prompt.
        tokenizer: theirs.

    Returns:
        The labels, -100 on such words as well; as they were where every labelled word stands in the prompt, or there
        is no prompt (raw text).
    """
    first = next((place for place, label in enumerate(labels) if label != IGNORE_INDEX), len(labels))
    # Decoded up to each token, because what a token adds to the text can depend on those before it.
    parts = [list(ids[:first]), *(list(ids[first:end]) for end in range(first, len(ids) + 1))]
    prompt, *begun = tokenizer.batch_decode(parts, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    known = set(re.findall(_WORD, prompt.lower()))
    words = list(re.finditer(_WORD, begun[-1].lower()))
    found, anything_new = list(labels), False
    for place, (before, after) in enumerate(pairwise(begun), first):
        touched = {word.group() for word in words if word.start() < len(after) and word.end() > len(before)}
        anything_new |= labels[place] != IGNORE_INDEX and not touched <= known
        if touched and touched <= known:
            found[place] = IGNORE_INDEX
    return found if anything_new else list(labels)
