"""Per-sample tables: one row per (split, index), the single source that every aggregate is computed from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unlearn_hf.common.checks import check_choice

Protocol = Literal["all", "official"]
Missing = Literal["error", "skip"]
OFFICIAL_ROWS = 300
"""TOFU's own evaluation takes the first 300 rows of each set."""

Compatibility = Literal["open_unlearning"] | None

_ROWS_TO_JUDGE_LENGTHS = 20
_SCORED = ("answer", "paraphrase", "perturbed")


def check_choices(protocol: Protocol, compatibility: Compatibility) -> None:
    """Raise a `ValueError` for an unknown protocol or compatibility."""
    check_choice("protocol", protocol, get_args(Protocol))
    check_choice("compatibility", compatibility, (None, "open_unlearning"))


def prepare_table(samples: pd.DataFrame, protocol: Protocol = "all", missing: Missing = "error") -> pd.DataFrame:
    """A checked copy, sorted by split and index, cut to the protocol's rows.

    Args:
        samples: per-sample table with at least the columns `split` and `index`.
        protocol: `"all"` rows, or `"official"`: those with index below 300 in each split.
        missing: what to do with a row that lacks a value which other rows of its split have. `"error"` refuses it;
            `"skip"` leaves it out of that metric, as logs of other frameworks ask for with `null`.

    Raises:
        ValueError: for unknown arguments, missing or duplicate keys, and likelihoods that are NaN; it names the split,
            the column and the first rows.
    """
    check_choice("protocol", protocol, get_args(Protocol))
    check_choice("missing", missing, get_args(Missing))
    if absent := [name for name in ("split", "index") if name not in samples]:
        raise ValueError(f"the per-sample table lacks the columns {absent}; it has {list(samples.columns)}.")
    if samples.empty:
        raise ValueError("the per-sample table has no rows; nothing was evaluated.")
    duplicates = samples.duplicated(["split", "index"])
    if duplicates.any():
        first = samples.loc[duplicates, ["split", "index"]].iloc[0].tolist()
        raise ValueError(
            f"{int(duplicates.sum())} rows of the per-sample table are duplicates, first {first}: distributed "
            "samplers pad with repeated rows. Keep one row per (split, index)."
        )
    table = samples.sort_values(["split", "index"], kind="stable").reset_index(drop=True)
    if protocol == "official":
        table = table[table["index"] < OFFICIAL_ROWS].reset_index(drop=True)
    for split, rows in table.groupby("split", sort=False):
        _check_likelihoods(str(split), rows, missing)
    return table


def _check_likelihoods(split: str, rows: pd.DataFrame, missing: Missing) -> None:
    for scored in _SCORED:
        losses, tokens = f"{scored}_mean_nll", f"{scored}_tokens"
        if losses not in rows:
            continue
        absent = rows[losses].isna().to_numpy()
        nan = np.array([not gone and np.isnan(np.asarray(value, dtype=np.float64)).any()
                        for value, gone in zip(rows[losses], absent, strict=True)])  # fmt: skip
        if missing == "error" and not absent.all():
            nan |= absent
        elif missing == "error" and tokens in rows:
            nan |= rows[tokens].notna().to_numpy()
        if nan.any():
            where = rows["index"].to_numpy()[nan]
            raise ValueError(
                f"{losses} of {split} is NaN in {where.size} of {len(rows)} rows, first index {where[:5].tolist()}: "
                "the model diverged (NaN logits), or these rows have no answer token."
            )


def split_rows(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of one split, possibly none."""
    return table[table["split"] == split]


def column_values(rows: pd.DataFrame, name: str, missing: Missing = "error") -> NDArray[np.float64] | None:
    """A numeric column without its missing entries, `None` when the rows do not have it at all.

    Raises:
        ValueError: if some rows have it and others not, and `missing` is `"error"`.
    """
    if name not in rows or rows.empty:
        return None
    present = rows[name].notna().to_numpy()
    if not present.any():
        return None
    if missing == "error" and not present.all():
        where = rows["index"].to_numpy()[~present]
        raise ValueError(
            f"{name} of {rows['split'].iloc[0]} is missing in {where.size} of {len(rows)} rows, first index "
            f'{where[:5].tolist()}. Evaluate them, or pass missing="skip" to leave them out.'
        )
    return rows.loc[present, name].to_numpy(np.float64)


def extraction_of(samples: pd.DataFrame, compatibility: Compatibility, ends: int = 0) -> pd.DataFrame:
    """The table with extraction strengths as `compatibility` defines them, as its mean has them.

    open-unlearning gives 1/n, not 0, where not even the last of n tokens is predicted.

    Args:
        samples: a table of ours.
        compatibility: whose definition is asked for.
        ends: tokens of each answer that extraction leaves out, the end of text.
    """
    if compatibility is None or not {"extraction_strength", "answer_tokens"} <= set(samples):
        return samples
    strength, tokens = (samples[name].to_numpy(np.float64) for name in ("extraction_strength", "answer_tokens"))
    tokens = tokens - ends
    floor = np.where(tokens >= 1, 1 / np.maximum(tokens, 1), 0.0)
    return samples.assign(extraction_strength=np.where((strength == 0) & ~np.isnan(tokens), floor, strength))


def row_fingerprint(row: Mapping[str, Any]) -> str:
    """Hash of everything in a row, the column `row` of a table: only values with the same one are paired."""
    return hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest()[:32]


def check_same_rows(rows: pd.DataFrame, reference: pd.DataFrame, what: str, split: str = "forget") -> None:
    """Raise unless a model's rows and the reference's rows are the same ones, as a paired metric needs.

    Args:
        rows: the model's rows of one split.
        reference: the reference's rows of that split.
        what: the metric, for errors.
        split: the split, for errors.

    Raises:
        ValueError: if one side has no rows, or indices or rows differ (where a log does not have the column `row`:
            reference texts and lengths); it names both sides and the mend.
    """
    if rows.empty or reference.empty:
        side = "the table" if rows.empty else "the reference"
        raise ValueError(f"{what} compares {split} rows, but {side} has none.")
    mine, theirs = set(rows["index"]), set(reference["index"])
    if mine != theirs:
        raise ValueError(
            f"{what} on {split} compares {len(mine)} rows with a reference of {len(theirs)} rows; its value depends "
            f"on which rows and how many. Evaluate both on the same rows, or use protocol='official' (the first "
            f"{OFFICIAL_ROWS} rows) for both."
        )
    pairs = _paired(rows, reference, "row")
    if pairs is None:
        _check_same_texts(rows, reference, what, split)
    elif (other := pairs["left"] != pairs["right"]).any():
        raise ValueError(
            f"{what} compares different {split} rows: {int(other.sum())} of {len(pairs)} differ, first index "
            f"{pairs.index[other][:5].tolist()}. Take a reference that was evaluated on the same data."
        )
    _check_same_lengths(rows, reference, what)


def _paired(rows: pd.DataFrame, reference: pd.DataFrame, name: str) -> pd.DataFrame | None:
    if name not in rows or name not in reference:
        return None
    left, right = rows.set_index("index")[name], reference.set_index("index")[name]
    pairs = pd.DataFrame({"left": left, "right": right}).dropna()
    return pairs if len(pairs) else None


def _check_same_texts(rows: pd.DataFrame, reference: pd.DataFrame, what: str, split: str) -> None:
    pairs = _paired(rows, reference, "reference_text")
    if pairs is None:
        return
    plain = pairs.map(lambda text: "".join(filter(str.isalnum, str(text).lower())))
    equal = (plain["left"] == plain["right"]).mean()
    if equal < 0.5:  # templates and decoding change some answers slightly, another split changes all of them
        raise ValueError(
            f"{what} compares different {split} rows: only {equal:.0%} of the reference answers agree. Take a "
            "reference that was evaluated on the same data."
        )


def _check_same_lengths(rows: pd.DataFrame, reference: pd.DataFrame, what: str) -> None:
    name = "paraphrase" if "paraphrase_tokens" in rows else "answer"
    pairs = _paired(rows, reference, f"{name}_tokens")
    if pairs is None or len(pairs) < _ROWS_TO_JUDGE_LENGTHS:
        return
    offsets = (pairs["left"] - pairs["right"]).value_counts(normalize=True)
    if offsets.iloc[0] < 0.5:  # one constant offset is a template's doing, many are other texts or another tokenizer
        raise ValueError(
            f"{what} compares texts of different lengths: token counts of each {name} follow no common offset. "
            "Take a reference of the same model family that was evaluated on the same rows, cut to the same length."
        )
