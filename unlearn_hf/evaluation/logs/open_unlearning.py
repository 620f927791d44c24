"""open-unlearning's logs as a per-sample table.

`TOFU_EVAL.json` and `MUSE_EVAL.json` map a metric to `{agg_value, value_by_index: {"0": {...}}}`, membership attacks
to `{forget: {...}, holdout: {...}, auc, agg_value}`; `*_SUMMARY.json` maps a metric to its aggregate alone. Any metric
may be missing, and aggregates and values may be `null`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from unlearn_hf.evaluation.logs.checked_values import MEAN_NLL, SHARE, mapping, number, numbers, row_index
from unlearn_hf.evaluation.metrics.truth_ratio import truth_ratio, truth_ratio_losses, truth_ratio_scores

_SPLITS = {"forget": "forget", "retain": "retain", "ra": "real_authors", "wf": "world_facts"}
_SETS = "|".join(_SPLITS)
_QUESTION_METRIC = re.compile(rf"^({_SETS})_q_a_(prob|para_prob|pert_prob|prob_normalised|rouge|gibberish)$")
_TRUTH_RATIO = re.compile(rf"^({_SETS})_truth_ratio$")
_MUSE_ROUGE = re.compile(r"^(forget|retain)_(knowmem|verbmem)_rouge$")
_ATTACK = re.compile(r"^mia_(loss|zlib|min_k_plus_plus|min_k|gradnorm|reference)$")
_SCORES = ("extraction_strength", "exact_memorization")
_AGGREGATES = ("model_utility", "forget_quality", "privleak")
_ROUGE_COLUMNS = {"rouge1_recall": "rouge_1_recall", "rougeL_recall": "rouge_l_recall", "rougeL_f1": "rouge_l_f1"}
_TEXT_COLUMNS = {"input": "prompt", "generation": "generation", "ground_truth": "reference_text"}
UNDETERMINED = "undetermined (open_unlearning or prob_mean)"

Cells = dict[tuple[str, int], dict[str, Any]]


def flat_name(metric: str) -> str | None:
    """Our flat name for one of that framework's metrics, `None` if it has none."""
    name = metric.lower()
    if match := _QUESTION_METRIC.match(name):
        split, what = _SPLITS[match[1]], match[2]
        options = split in ("real_authors", "world_facts")
        if what == "prob_normalised" or (what == "prob" and not options):
            return f"{split}_prob"
        names: dict[str, str | None] = {"prob": f"{split}_answer_prob", "pert_prob": f"{split}_perturbed_prob"}
        names |= {"rouge": f"{split}_rouge", "gibberish": "forget_fluency" if split == "forget" else None}
        names["para_prob"] = None if options else f"{split}_paraphrase_prob"
        return names.get(what)
    if match := _TRUTH_RATIO.match(name):
        return f"{_SPLITS[match[1]]}_truth_ratio"
    if match := _ATTACK.match(name):
        return f"mia_{match[1].replace('gradnorm', 'gradient_norm')}_auc"
    return name if _MUSE_ROUGE.match(name) or name in _SCORES or name in _AGGREGATES else None


def is_log(content: Any) -> bool:
    """Whether this is a `*_EVAL.json` or a `*_SUMMARY.json`."""

    def known(metric: str, value: Any) -> bool:
        if flat_name(metric) is None and not _QUESTION_METRIC.match(metric.lower()):
            return False
        if isinstance(value, Mapping):
            return bool({"agg_value", "value_by_index", "auc"} & set(value))
        return value is None or isinstance(value, (int, float))

    return isinstance(content, Mapping) and any(known(key, value) for key, value in content.items())


def is_muse(content: Mapping[str, Any]) -> bool:
    """Whether the log is of MUSE rather than TOFU."""
    return any(_MUSE_ROUGE.match(key.lower()) for key in content)


def logged_aggregates(content: Mapping[str, Any]) -> dict[str, float]:
    """Flat name -> logged aggregate; `null` ones are left out."""
    aggregates = {}
    for key, value in content.items():
        if (name := flat_name(key)) is None:
            continue
        logged = value.get("agg_value", value.get("auc")) if isinstance(value, Mapping) else value
        parsed = number(logged, f"{key}: agg_value") if not isinstance(logged, Mapping) else math.nan
        if not math.isnan(parsed):
            aggregates[name] = parsed
    return aggregates


def read_evaluation(content: Mapping[str, Any]) -> pd.DataFrame | None:
    """Per-sample table of a `*_EVAL.json`, `None` if it holds no values per row.

    Columns beyond the usual ones: `answer_prob`, `paraphrase_prob`, `perturbed_prob` (as logged, in float32
    precision), `choice_prob`, `truth_ratio` with `truth_ratio_definition`, `fluency`.

    Raises:
        ValueError: if a value is NaN, impossible or of the wrong kind, or logged truth ratios contradict the
            logged losses.
    """
    cells: Cells = defaultdict(dict)
    for metric, entry in content.items():
        name = metric.lower()
        if not isinstance(entry, Mapping):
            continue
        if match := _QUESTION_METRIC.match(name):
            _read_question_metric(cells, entry, metric, _SPLITS[match[1]], match[2])
        elif match := _TRUTH_RATIO.match(name):
            _read_scores(cells, entry, metric, _SPLITS[match[1]], "truth_ratio")
        elif match := _MUSE_ROUGE.match(name):
            _read_rouge(cells, entry, metric, f"{match[2]}_{match[1]}")
        elif match := _ATTACK.match(name):
            for split in ("forget", "holdout"):
                where = f"{metric}: {split}"
                values = mapping(entry.get(split) or {}, where)
                _read_scores(cells, values, where, split, match[1].replace("gradnorm", "gradient_norm"))
        elif name in _SCORES:
            _read_scores(cells, entry, metric, "verbmem_forget" if is_muse(content) else "forget", name)
    if not cells:
        return None
    rows = [{"split": split, "index": index, **columns} for (split, index), columns in cells.items()]
    table = pd.DataFrame(rows)
    if "truth_ratio" in table:
        aggregates = logged_aggregates(content)
        table["truth_ratio_definition"] = None
        for split, ratios in table[table["truth_ratio"].notna()].groupby("split"):
            definition = truth_ratio_definition(ratios, aggregates.get(f"{split}_truth_ratio"))
            table.loc[ratios.index, "truth_ratio_definition"] = definition
    return table


def _by_index(entry: Mapping[str, Any], metric: str) -> dict[int, Mapping[str, Any]]:
    """Row -> its values; rows that are `null` are missing, as that framework treats them."""
    rows = entry.get("value_by_index") or {}
    if not isinstance(rows, Mapping):
        raise ValueError(f"{metric}: value_by_index is {type(rows).__name__}, and must be {{'0': {{...}}, ...}}.")
    return {
        row_index(key, metric): mapping(value, f"{metric}[{key}]") for key, value in rows.items() if value is not None
    }


def _read_scores(cells: Cells, entry: Mapping[str, Any], metric: str, split: str, column: str) -> None:
    for index, values in _by_index(entry, metric).items():
        cells[split, index][column] = number(values.get("score"), f"{metric}[{index}]: score")


def _read_rouge(cells: Cells, entry: Mapping[str, Any], metric: str, split: str) -> None:
    for index, values in _by_index(entry, metric).items():
        cell = cells[split, index]
        for key, column in _ROUGE_COLUMNS.items():
            if key in values:
                cell[column] = number(values[key], f"{metric}[{index}]: {key}", SHARE)
        cell.update({column: values[key] for key, column in _TEXT_COLUMNS.items() if key in values})


def _read_question_metric(cells: Cells, entry: Mapping[str, Any], metric: str, split: str, what: str) -> None:
    if what == "rouge":
        _read_rouge(cells, entry, metric, split)
    elif what == "gibberish":
        _read_scores(cells, entry, metric, split, "fluency")
    else:
        for index, values in _by_index(entry, metric).items():
            cell, where = cells[split, index], f"{metric}[{index}]"
            if what == "prob_normalised":
                cell["choice_prob"] = number(values.get("prob"), f"{where}: prob", SHARE)
                continue
            for key, suffix in (("prob", "prob"), ("avg_loss", "mean_nll")):
                if key not in values:
                    continue
                parsed = numbers(values[key], f"{where}: {key}", SHARE if key == "prob" else MEAN_NLL)
                if what == "pert_prob":
                    cell[f"perturbed_{suffix}"] = parsed
                else:  # several paraphrases are averaged, as that framework does
                    column = f"{'answer' if what == 'prob' else 'paraphrase'}_{suffix}"
                    cell[column] = math.nan if parsed is None else float(np.mean(parsed))


def truth_ratio_definition(rows: pd.DataFrame, aggregate: float | None) -> str:
    """By which of that framework's two definitions the logged truth ratios of one set were computed.

    The logs do not say. Logged losses settle it; without them, ratios above 1 or the logged aggregate may.

    Raises:
        ValueError: if the ratios follow from the logged losses by neither definition.
    """
    scores = rows["truth_ratio"].to_numpy(np.float64)
    candidates = ("open_unlearning", "prob_mean")
    losses = truth_ratio_losses(rows)
    if losses is not None and len(losses[0]) == len(rows):
        for definition in candidates:
            expected = truth_ratio(*losses, definition)
            if np.allclose(scores, expected, rtol=1e-5, atol=0):
                return definition
        raise ValueError(
            f"the logged truth ratios of {rows['split'].iloc[0]} follow from its logged losses neither as wrong / "
            "right nor as right / (right + wrong) (prob_mean). Was the log edited, or written by another framework?"
        )
    if (scores > 1).any():
        return "open_unlearning"
    forget = rows["split"].iloc[0] == "forget"
    means = {name: float(np.mean(truth_ratio_scores(scores, name, forget))) for name in candidates}
    fits = [
        name for name in candidates if aggregate is not None and math.isclose(means[name], aggregate, rel_tol=1e-6)
    ]
    return fits[0] if len(fits) == 1 else UNDETERMINED
