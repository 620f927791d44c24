"""From rows of a run, or of one that ended long ago, to what judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from unlearn_hf.data.encoding import Template, encode_dataset
from unlearn_hf.data.templates import resolve_template
from unlearn_hf.evaluation.verdict import BEFORE_FILE
from unlearn_hf.evaluation.verdict.guesses import with_guesses
from unlearn_hf.evaluation.verdict.measuring import Judge
from unlearn_hf.evaluation.verdict.rows import drawn_rows, judged_rows

_MOST_COMPARED = 2000
"""Rows to keep that answers of a model that never saw the others are expected from."""


def make_judge(
    encoded: Mapping[str, Any],
    raw: Mapping[str, Any],
    chosen: Mapping[str, Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    *,
    samples: int,
    held_back: bool,
    batch_size: int,
    max_length: int,
) -> Judge:
    """Make what measures the chosen rows.

    Args:
        encoded: encoded rows: `forget`, and `retain` and `holdout` where they are known.
        raw: the same rows as they were given.
        chosen: for each set the numbers of the rows that are measured.
        tokenizer: turns tokens into text.
        template: of paraphrases.
        samples: sampled answers of each row to forget.
        held_back: whether the chosen rows to keep were not trained on.
        batch_size: most sequences per forward pass.
        max_length: tokens per scored sequence.
    """

    def judged(name: str, rows: Sequence[int]) -> list[Any]:
        return judged_rows(encoded[name], raw[name], rows, tokenizer, template, max_length)

    rows = {name: judged(name, each) for name, each in chosen.items()}
    compared = judged("retain", drawn_rows(len(encoded["retain"]), _MOST_COMPARED)) if "retain" in encoded else []
    return Judge(
        with_guesses(rows["forget"], [(row.question, row.answer) for row in compared]),
        rows.get("retain", []),
        rows.get("holdout", []),
        samples=samples,
        forget_of=len(encoded["forget"]),
        held_back=held_back,
        batch_size=batch_size,
        max_length=max_length,
    )


def judge_again(
    raw: Mapping[str, Any],
    before: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    settings: Mapping[str, Any],
    batch_size: int,
) -> Judge:
    """Make what measures the rows of a run that has ended, those that were measured then.

    Args:
        raw: rows as that run trained on them: `forget`, and `retain` and `holdout` where they are known.
        before: what was measured before it.
        tokenizer: turns tokens into text.
        settings: `template`, `max_length`, `verdict_rows` and `verdict_samples` of that run.
        batch_size: sequences per forward pass, at least all samples of a row.

    Raises:
        ValueError: when `before` is about other rows.
    """
    length, count, samples = (settings[name] for name in ("max_length", "verdict_rows", "verdict_samples"))
    template = resolve_template(tokenizer, settings["template"])
    encoded = {
        name: encode_dataset(rows, tokenizer, template, length, f"{name} rows of an earlier request")
        for name, rows in raw.items()
    }
    chosen = {"forget": drawn_rows(len(encoded["forget"]), count)}
    if "holdout" in encoded:
        chosen["holdout"] = drawn_rows(len(encoded["holdout"]), 2 * count)
    batch_size = max(batch_size, samples)
    judge = make_judge(
        encoded, raw, chosen, tokenizer, template, samples=samples, held_back=False, batch_size=batch_size,
        max_length=length,
    )  # fmt: skip
    judge.before = {"holdout": [], **before}
    if len(judge.before["forget"]) != len(judge.forget):
        raise ValueError(f"{BEFORE_FILE} of its run is about other rows")
    return judge
