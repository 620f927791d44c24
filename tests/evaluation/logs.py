"""The small tables as others log them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.evaluation.tables import tofu_table
from unlearn_hf.evaluation.logs.official_tofu import FILES
from unlearn_hf.evaluation.metrics.truth_ratio import truth_ratio

OFFICIAL_KEYS = {
    "avg_gt_loss": "answer_mean_nll",
    "num_token_gt": "answer_tokens",
    "avg_paraphrased_loss": "paraphrase_mean_nll",
    "average_perturb_loss": "perturbed_mean_nll",
    "rougeL_recall": "rouge_l_recall",
}


def official_log(lists: bool = False) -> dict[str, Any]:
    """The table of three rows as TOFU logs it; real authors and world facts repeat the answer as paraphrase."""
    table = tofu_table()
    log: dict[str, Any] = {}
    for name, split in FILES.items():
        rows = table[table["split"] == split]
        content = {key: rows[column].tolist() for key, column in OFFICIAL_KEYS.items()}
        if split in ("real_authors", "world_facts"):
            content["avg_paraphrased_loss"] = content["avg_gt_loss"]
        as_dict = {key: {str(i): value for i, value in enumerate(values)} for key, values in content.items()}
        log[name] = content if lists else as_dict
    return log


PREFIXES = {"forget": "forget", "retain": "retain", "ra": "real_authors", "wf": "world_facts"}


def by_index(values: list[dict[str, Any] | None], aggregate: float | None = None) -> dict[str, Any]:
    return {"agg_value": aggregate, "value_by_index": {str(i): value for i, value in enumerate(values)}}


def losses(values: Any) -> list[dict[str, Any] | None]:
    return [{"avg_loss": value, "prob": np.exp(-np.asarray(value)).tolist()} for value in values]


def evaluation(definition: str = "open_unlearning") -> dict[str, Any]:
    """The table of three rows as open-unlearning logs it."""
    table, log = tofu_table(), {}
    for prefix, split in PREFIXES.items():
        rows = table[table["split"] == split]
        options = prefix in ("ra", "wf")
        right = rows["answer_mean_nll" if options else "paraphrase_mean_nll"]
        log[f"{prefix}_Q_A_Prob"] = by_index(losses(rows["answer_mean_nll"]))
        if not options:
            log[f"{prefix}_Q_A_PARA_Prob"] = by_index(losses(right))
        log[f"{prefix}_Q_A_PERT_Prob"] = by_index(losses(rows["perturbed_mean_nll"]))
        log[f"{prefix}_Q_A_ROUGE"] = by_index([{"rougeL_recall": value} for value in rows["rouge_l_recall"]])
        wrong = [np.asarray(value) for value in rows["perturbed_mean_nll"]]
        ratio = truth_ratio(right.to_numpy(float), wrong, definition if prefix == "forget" else "open_unlearning")
        key = "forget_truth_ratio" if prefix == "forget" else f"{prefix}_Truth_Ratio"
        aggregate = ratio.mean() if definition == "prob_mean" else np.minimum(ratio, 1 / ratio).mean()
        aggregate = aggregate if prefix == "forget" else np.maximum(0, 1 - ratio).mean()
        log[key] = by_index([{"score": value} for value in ratio], float(aggregate))
    forget, holdout = (table[table["split"] == split] for split in ("forget", "holdout"))
    log["mia_min_k"] = {
        "auc": 5.5 / 9,
        "agg_value": 5.5 / 9,
        "forget": by_index([{"score": value} for value in forget["min_k"]]),
        "holdout": by_index([{"score": value} for value in holdout["min_k"]]),
    }
    # What that framework logs is never 0: 1/4 where no suffix of four tokens is predicted.
    log["extraction_strength"] = by_index([{"score": max(v, 0.25)} for v in forget["extraction_strength"]])
    log["exact_memorization"] = by_index([{"score": value} for value in forget["exact_memorization"]])
    log["forget_quality"] = {"agg_value": None}
    log["privleak"] = {"agg_value": 23.5}
    return log


def save(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def muse_evaluation() -> dict[str, Any]:
    log = {
        name: by_index([{"rougeL_f1": value, "rougeL_recall": 1.0} for value in (0.0, 0.5, 1.0)])
        for name in ("forget_verbmem_ROUGE", "forget_knowmem_ROUGE", "retain_knowmem_ROUGE")
    }
    return {**log, "mia_min_k": evaluation()["mia_min_k"], "extraction_strength": evaluation()["extraction_strength"]}
