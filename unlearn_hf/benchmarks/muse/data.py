"""MUSE: news articles or books that are to be forgotten, and six questions about how well that went.

Shi et al., "MUSE: Machine Unlearning Six-Way Evaluation for Language Models", 2024, https://arxiv.org/abs/2407.06460.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from unlearn_hf.benchmarks.muse.benchmark import MUSE
from unlearn_hf.benchmarks.parts import BenchmarkData, load_from_hub, rows_file, source_folder, source_label
from unlearn_hf.common.checks import check_choice
from unlearn_hf.common.files import read_json_lines
from unlearn_hf.data.mini import MINI_NEWS
from unlearn_hf.data.row_checks import check_holdout

FOLDS = range(1, 5)

# part: configuration on the Hub and splits in it; older files have other names for some.
_PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "forget": ("raw", ("forget",)),
    "retain1": ("raw", ("retain1",)),
    "retain2": ("raw", ("retain2",)),
    "holdout": ("raw", ("holdout",)),
    "knowmem_forget_qa": ("knowmem", ("forget_qa",)),
    "knowmem_retain_qa": ("knowmem", ("retain_qa", "retain2_qa")),
    "knowmem_forget_qa_icl": ("knowmem", ("forget_qa_icl",)),
    "knowmem_retain_qa_icl": ("knowmem", ("retain_qa_icl", "retain2_qa_icl")),
    "verbmem_forget": ("verbmem", ("forget",)),
    "privleak_forget": ("privleak", ("forget",)),
    "privleak_retain": ("privleak", ("retain", "retain2")),
    "privleak_holdout": ("privleak", ("holdout",)),
    **{f"scal_forget_{fold}": ("scal", (f"forget_{fold}",)) for fold in FOLDS},
    **{f"sust_forget_{fold}": ("sust", (f"forget_{fold}",)) for fold in FOLDS},
    "train_forget": ("train", ("forget",)),
    "train_retain1": ("train", ("retain1",)),
    "train_retain2": ("train", ("retain2",)),
}
# Only the mini corpus has them.
_MINI_PARTS = _PARTS | {f"train_{name}_qa": ("train", (f"{name}_qa",)) for name in ("forget", "retain")}
_COLUMNS = {"knowmem": ("question", "answer"), "verbmem": ("prompt", "gt")}

Rows = list[dict[str, Any]]
Corpus = Literal["news", "books"]


class MuseData(BenchmarkData):
    """MUSE with one of its corpora; `split` is the corpus.

    Parts, each a dataset with the column `text` unless said otherwise:

    - `forget`; `retain1`, the regulariser, also as `retain`; `retain2`, which evaluation asks about; `holdout`, which
      no model saw;
    - `knowmem_forget_qa`, `knowmem_retain_qa` (`question`, `answer`) and the shots for their prompts,
      `knowmem_forget_qa_icl`, `knowmem_retain_qa_icl`;
    - `verbmem_forget` (`prompt`, `gt`: how the text goes on);
    - `privleak_forget`, `privleak_retain`, `privleak_holdout`;
    - News only: `scal_forget_1..4` (forget sets that grow) and `sust_forget_1..4` (requests that come one by one);
    - `train_forget`, `train_retain1`, `train_retain2`: what the target model was trained on, on News four times what
      the main experiment unlearns.

    The mini corpus also has `train_forget_qa` and `train_retain_qa`, texts of questions and answers on the articles: a
    model small enough for this corpus does not carry a fact from an article over to an answer by itself.
    """


def load_muse(corpus: Corpus = "news", source: str | Path = "hub", revision: str | None = None) -> MuseData:
    """Load MUSE.

    Parts that the source does not have are absent, and asking for one says which file that is. On News some are made
    from others: `scal_forget_k` is `sust_forget_1..k` in a row, `train_forget` is `scal_forget_4`, and `forget` is the
    first of both.

    Train on `text_windows(data["forget"]["text"], tokenizer)`.

    Args:
        corpus: `news` or `books`.
        source: `hub`; a folder of JSON files `<configuration>/<split>.json` (lists of texts or of objects), directly
            or in a folder named after the corpus; or `mini`, a small news corpus that comes with the library.
        revision: commit or tag on the Hub.

    Returns:
        The data, a dict of `datasets.Dataset`.

    Raises:
        ValueError: for an unknown corpus or source, a file of another form, holdout texts that are to be forgotten, or
            when there is nothing to forget.
    """
    check_choice("corpus", corpus, MUSE.splits)
    if source == "mini" and corpus != "news":
        raise ValueError(f"source: 'mini' has no {corpus}; use corpus 'news', or another source.")
    folder = source_folder(source, MINI_NEWS)
    repository = MUSE.hub_datasets[corpus]
    load = cache(lambda configuration: load_from_hub(repository, configuration, revision=revision))
    parts, absent = {}, {}
    for part, (configuration, splits) in (_MINI_PARTS if source == "mini" else _PARTS).items():
        if folder is None:
            values, reason = _from_hub(repository, configuration, splits, *load(configuration))
        else:
            inner = folder / corpus
            values, reason = _from_folder((inner if inner.is_dir() else folder) / configuration, splits)
        if values is None:
            absent[part] = reason
        else:
            parts[part] = [_row(value, configuration, place) for place, value in values]
    return _complete(parts, absent, corpus, source_label(source, revision))


Values = list[tuple[str, Any]]


def _from_folder(folder: Path, splits: Sequence[str]) -> tuple[Values | None, str]:
    """Values with their places of the first split that is there, or why there are none."""
    path = rows_file(*(folder / split for split in splits))
    if path is None:
        return None, f"{folder / splits[0]}.json is missing; get it from the Hub, or use source='hub'."
    return [(f"{path}, entry {number}", value) for number, value in read_json_lines(path)], ""


def _from_hub(
    name: str, configuration: str, splits: Sequence[str], loaded: Any, reason: str
) -> tuple[Values | None, str]:
    """The same, of what the hub gave, where Books have no scal and sust."""
    split = next((split for split in splits if split in (loaded or ())), None)
    if split is None:
        return None, reason or f"{name} has no {configuration}/{splits[0]}."
    return [(f"{name}, {configuration}/{split}", row) for row in loaded[split]], ""


def _row(value: Any, configuration: str, place: str) -> dict[str, Any]:
    """A text or an object, as a row with the columns of its configuration in their usual order."""
    columns = _COLUMNS.get(configuration, ("text",))
    row = {"text": value} if isinstance(value, str) else value
    if not isinstance(row, dict) or not all(isinstance(row.get(column), str) for column in columns):
        found = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"{place}: text in {' and '.join(columns)} is expected; found {found}.")
    return {column: row[column] for column in columns}


def _complete(parts: dict[str, Rows], absent: dict[str, str], corpus: str, source: str) -> MuseData:
    """Make what can be made from other parts."""
    if corpus == "news":
        first = next((parts[name] for name in ("forget", "sust_forget_1", "scal_forget_1") if name in parts), None)
        if first is not None:
            parts = {"forget": first, "sust_forget_1": first, "scal_forget_1": first} | parts
        for fold in FOLDS[1:]:
            before, request = f"scal_forget_{fold - 1}", f"sust_forget_{fold}"
            if before in parts and request in parts:
                parts.setdefault(f"scal_forget_{fold}", parts[before] + parts[request])
        if "scal_forget_4" in parts:
            parts.setdefault("train_forget", parts["scal_forget_4"])
    if "forget" not in parts:
        raise ValueError(f"{corpus} from {source}: there is nothing to forget; {absent['forget']}")
    if "retain1" in parts:
        parts["retain"] = parts["retain1"]
    elif "retain1" in absent:
        absent["retain"] = absent["retain1"]
    holdout, members = (parts.get(f"privleak_{name}", []) for name in ("holdout", "forget"))
    check_holdout(holdout, members, f"privleak_holdout from {source}")
    # In one order, whatever was made from what, so that equal data have equal fingerprints.
    names = [name for name in (*_PARTS, "retain") if name in parts] + [name for name in parts if name not in _PARTS]
    return MuseData({name: parts[name] for name in names}, split=corpus, source=source, absent=absent)
