"""Small tables whose metrics can be computed by hand."""

from __future__ import annotations

import math

import pandas as pd

from unlearn_hf.evaluation.metrics.privacy import ATTACKS

ANSWER = (0.5, 0.25, 1.0)
PARAPHRASE = (0.5, 0.2, 0.1)
WRONG = ((0.25, 0.25), (0.4, 0.1), (0.1, 0.4))  # geometric means 0.25, 0.2, 0.2; arithmetic means 0.25 each
ROUGE = (1.0, 0.5, 0.0)


def nll(probability: float) -> float:
    return -math.log(probability)


def three_rows(split: str) -> list[dict[str, object]]:
    """Rows of one set. Real authors and world facts have no paraphrase; their answer has its probabilities instead."""
    options = split in ("real_authors", "world_facts")
    rows = []
    for index in range(3):
        row: dict[str, object] = {
            "split": split,
            "index": index,
            "answer_mean_nll": nll((PARAPHRASE if options else ANSWER)[index]),
            "answer_tokens": 5,
            "perturbed_mean_nll": [nll(probability) for probability in WRONG[index]],
            "rouge_l_recall": ROUGE[index],
        }
        if not options:
            row["paraphrase_mean_nll"] = nll(PARAPHRASE[index])
        rows.append(row)
    return rows


def tofu_table() -> pd.DataFrame:
    rows = [row for split in ("forget", "retain", "real_authors", "world_facts") for row in three_rows(split)]
    for row, strength, exact, min_k in zip(
        rows, (1.0, 0.5, 0.0), (1.0, 0.75, 0.25), (1.0, 2.0, 4.0), strict=False
    ):  # the forget rows
        row.update({"extraction_strength": strength, "exact_memorization": exact, "min_k": min_k})
    rows += [{"split": "holdout", "index": index, "min_k": score} for index, score in enumerate((2.0, 3.0, 3.0))]
    return pd.DataFrame(rows)


def muse_table() -> pd.DataFrame:
    columns = {
        "verbmem_forget": ("rouge_l_f1", (0.0, 0.5, 1.0)),
        "knowmem_forget": ("rouge_l_f1", (0.2, 0.2, 0.5)),
        "knowmem_retain": ("rouge_l_f1", (1.0, 1.0, 0.7)),
        "forget": ("min_k", (1.0, 2.0, 4.0)),
        "holdout": ("min_k", (2.0, 3.0, 3.0)),
    }
    rows = [
        {"split": split, "index": index, column: value}
        for split, (column, values) in columns.items()
        for index, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def attack_scores(forget: list[float], holdout: list[float]) -> pd.DataFrame:
    """The same scores for each attack."""
    rows = [
        {"split": split, "index": index, **dict.fromkeys(ATTACKS, score)}
        for split, values in (("forget", forget), ("holdout", holdout))
        for index, score in enumerate(values)
    ]
    return pd.DataFrame(rows)
