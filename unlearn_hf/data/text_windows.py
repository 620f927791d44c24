"""Raw text as windows of equal length."""

from __future__ import annotations

from collections.abc import Iterable

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from unlearn_hf.data.encoding import special_prefix
from unlearn_hf.data.labels import IGNORE_INDEX

SEPARATOR = "\n\n"


def text_windows(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, window: int = 2047, fill: bool = True
) -> Dataset:
    """Join texts and cut them into windows, as MUSE trains on its corpora.

    The texts are joined by a blank line and tokenised once, so that windows run on from one text to the next and none
    but the last is shorter. Each begins with BOS where the tokenizer uses one; every other token is labelled, and no
    end-of-sequence token is added.

    Args:
        texts: raw texts; empty ones are kept (MUSE-News has one), they add a blank line.
        tokenizer: any tokenizer.
        window: tokens in a window, besides BOS. MUSE: 2047.
        fill: fill the last window up with the first one, BOS included, as MUSE does; otherwise it stays short. A
            single window always stays as it is.

    Returns:
        An encoded dataset: `input_ids` and `labels`.

    Raises:
        ValueError: when the texts hold no tokens, or `window` is not positive.
    """
    if window < 1:
        raise ValueError(f"window: {window} tokens are too few; give at least 1.")
    text = SEPARATOR.join(texts)
    # `verbose`: that the whole corpus is longer than the model's context is no cause for a warning.
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text.strip() else []
    if not ids:
        raise ValueError("texts: they are empty, so there is nothing to learn.")
    prefix = special_prefix(tokenizer, text)
    windows = [prefix + ids[start : start + window] for start in range(0, len(ids), window)]
    labels = [[IGNORE_INDEX] * len(prefix) + each[len(prefix) :] for each in windows]
    if fill and len(windows) > 1:
        full = len(windows[0])
        windows[-1], labels[-1] = (windows[-1] + windows[0])[:full], (labels[-1] + labels[0])[:full]
    return Dataset.from_dict({"input_ids": windows, "labels": labels})
