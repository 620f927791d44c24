"""Per-sample logs of locuslab/tofu and its descendants (NPO, SimNPO, AltPO) as a per-sample table.

One file per set, or `eval_log_aggregated.json` = {file name: content}. Each file maps a key to its values per row, as
`{"0": value, ...}` (locuslab/tofu) or as a list (NPO, SimNPO). Optional keys may be missing: NPO's logs have no
`truth_ratio`, callback logs no `normalized_gt_loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from unlearn_hf.evaluation.logs.checked_values import MEAN_NLL, SHARE, Bounds, mapping, number, numbers, row_index

BENCHMARK = "tofu"

FILES: dict[str, str] = {
    "eval_log.json": "retain",
    "eval_log_forget.json": "forget",
    "eval_real_author_wo_options.json": "real_authors",
    "eval_real_world_wo_options.json": "world_facts",
}
"""Official file names and the sets that they hold."""

# Key -> column, how a value is read, and what it lies between.
_KEYS: dict[str, tuple[str, Callable[..., Any], Bounds | None]] = {
    "avg_gt_loss": ("answer_mean_nll", number, MEAN_NLL),
    "num_token_gt": ("answer_tokens", number, None),
    "avg_paraphrased_loss": ("paraphrase_mean_nll", number, MEAN_NLL),
    "num_token_paraphrased": ("paraphrase_tokens", number, None),
    "rouge1_recall": ("rouge_1_recall", number, SHARE),
    "rougeL_recall": ("rouge_l_recall", number, SHARE),
    "truth_ratio": ("logged_truth_ratio", number, None),
    "normalized_gt_loss": ("logged_choice_nll", number, None),
    "average_perturb_loss": ("perturbed_mean_nll", numbers, MEAN_NLL),
    "num_token_perturb": ("perturbed_tokens", numbers, None),
}
_SUMS = {
    "avg_gt_loss": ("gt_loss", "num_token_gt"),
    "avg_paraphrased_loss": ("paraphrased_loss", "num_token_paraphrased"),
}
_FULL_SIZES = {"real_authors": 100, "world_facts": 117}
_OFFICIAL_ROWS, _ALL_ROWS = 300, 400


def is_tofu_set(content: Any) -> bool:
    """Whether this is the log of one set."""
    return isinstance(content, Mapping) and bool({"avg_gt_loss", "average_perturb_loss", "gt_loss"} & set(content))


def is_tofu_log(content: Any) -> bool:
    """Whether this is an aggregated log, {file name: log of one set}."""
    return isinstance(content, Mapping) and any(_file_split(str(key)) and is_tofu_set(content[key]) for key in content)


def _file_split(name: str) -> str | None:
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    return FILES.get(base if base.endswith(".json") else f"{base}.json")


def guess_split(file_name: str) -> str | None:
    """The set that a single log holds, by its file name; `None` if that says nothing."""
    name = file_name.lower()
    for pattern, split in (
        ("real_author", "real_authors"),
        ("real_world", "world_facts"),
        ("world_fact", "world_facts"),
        ("forget", "forget"),
        ("eval_log", "retain"),
    ):
        if pattern in name:
            return split
    return None


def read_tofu_log(content: Mapping[str, Any]) -> pd.DataFrame:
    """Per-sample table of an aggregated log; entries under other names than those of its sets are left out.

    Raises:
        ValueError: see `read_tofu_set`; also if the entry of a set is no object.
    """
    splits = {str(key): _file_split(str(key)) for key in content}
    tables = [read_tofu_set(mapping(content[key], key), split, key) for key, split in splits.items() if split]
    return pd.concat(tables, ignore_index=True)


def read_tofu_set(content: Mapping[str, Any], split: str, name: str) -> pd.DataFrame:
    """Per-sample table of the log of one set.

    Args:
        content: key -> values per row.
        split: the set.
        name: file name, for errors.

    Raises:
        ValueError: if keys disagree about the rows, a value is NaN, impossible or of the wrong kind, or rows are
            padding of a distributed sampler.
    """
    content = _with_means(content)
    used = [key for key in (*_KEYS, "generated_text") if content.get(key)]
    if not used:
        raise ValueError(f"{name} has the keys {sorted(content)} but no rows.")
    listed = any(isinstance(content[key], list) for key in used)
    columns = {key: _rows(content[key], f"{name}: {key}") for key in used}
    indices = list(columns[used[0]])
    for key, values in columns.items():
        if set(values) != set(indices):
            odd = sorted(set(values) ^ set(indices))
            raise ValueError(
                f"{name}: {key} has {len(values)} rows and {used[0]} has {len(indices)}; they differ in rows "
                f"{odd[:5]}. All keys of a log hold the same rows; is the file complete?"
            )
    indices.sort()
    if listed:
        _refuse_padding(columns, indices, split, name)
    table: dict[str, list[Any]] = {"split": [split] * len(indices), "index": indices}
    for key, (column, read, bounds) in _KEYS.items():
        if key in columns:
            table[column] = [read(columns[key][i], f"{name}: {key}[{i}]", bounds) for i in indices]
    if "generated_text" in columns:
        table.update(_texts([columns["generated_text"][i] for i in indices]))
    return pd.DataFrame(table)


def _rows(values: Any, where: str) -> dict[int, Any]:
    if isinstance(values, list):
        return dict(enumerate(values))
    if isinstance(values, Mapping):
        return {row_index(key, where): value for key, value in values.items()}
    raise ValueError(f"{where} is {type(values).__name__}, and must be a list or {{'0': value, ...}}.")


def _with_means(content: Mapping[str, Any]) -> dict[str, Any]:
    """Mean losses from summed losses and token counts, where a log has only those."""
    result = dict(content)
    for mean, (total, tokens) in _SUMS.items():
        if not result.get(mean) and result.get(total) and result.get(tokens):
            sums, counts = _rows(result[total], total), _rows(result[tokens], tokens)
            pairs = {i: (number(sums[i], total), number(counts[i], tokens)) for i in sums if i in counts}
            if empty := [i for i, (_, count) in pairs.items() if count == 0]:
                raise ValueError(f"{tokens} is 0 in rows {empty[:5]}: these rows have no answer token. Drop them.")
            result[mean] = {str(i): loss / count for i, (loss, count) in pairs.items()}
    return result


def _texts(generated: list[Any]) -> dict[str, list[Any]]:
    """Prompt, generation and reference; AltPO's fourth entry is a gibberish score, which is not ours to read."""
    names = ("prompt", "generation", "reference_text")
    complete = [entry if isinstance(entry, list) and len(entry) >= len(names) else [None] * 3 for entry in generated]
    return {name: [entry[position] for entry in complete] for position, name in enumerate(names)}


def _refuse_padding(columns: dict[str, dict[int, Any]], indices: list[int], split: str, name: str) -> None:
    """Lists have no row keys, so rows that a sampler repeated cannot be told by key.

    Padded lists are refused rather than cleaned: the ranks' rows are interleaved in blocks whose size differs between
    keys, so rows of different keys do not belong together.
    """
    count = len(indices)
    full = _FULL_SIZES.get(split)
    too_many = count > full if full else _OFFICIAL_ROWS < count < _ALL_ROWS or _ALL_ROWS < count <= _ALL_ROWS + 32
    keys = [key for key in ("avg_gt_loss", "avg_paraphrased_loss", "average_perturb_loss") if key in columns]
    rows = [tuple(str(columns[key][i]) for key in keys) for i in indices]
    if "generated_text" in columns:
        rows = [(str(text[0]), str(text[2])) if isinstance(text, list) and len(text) > 2 else () for text in
                columns["generated_text"].values()]  # fmt: skip
    distinct = len(set(rows))
    # A collapsed model may give one loss to many rows; padding repeats a few.
    repeated = bool(keys) and 0 < count - distinct < count / 4
    if too_many or repeated:
        what = (
            f"{count - distinct} of them repeated"
            if repeated
            else f"more than the {full or _OFFICIAL_ROWS} of the set"
        )
        raise ValueError(
            f"{name} lists {count} rows, {what}: a distributed sampler padded it, and its rows are interleaved. Take "
            "the aggregated log (eval_log_aggregated.json), which is clean."
        )
