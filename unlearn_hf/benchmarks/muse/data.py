"""MUSE: news articles or books that are to be forgotten, and six questions about how well that went.

Shi et al., "MUSE: Machine Unlearning Six-Way Evaluation for Language Models", 2024, https://arxiv.org/abs/2407.06460.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from unlearn_hf.benchmarks.parts import BenchmarkData
from unlearn_hf.common.files import read_json_lines
from unlearn_hf.data.mini import MINI_NEWS
from unlearn_hf.data.row_checks import check_holdout

HUB_NAMES = {"news": "muse-bench/MUSE-News", "books": "muse-bench/MUSE-Books"}
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
    if corpus not in HUB_NAMES:
        raise ValueError(f"corpus: {corpus!r} is not one of {', '.join(HUB_NAMES)}.")
    if source == "mini":
        if corpus != "news":
            raise ValueError(f"source: 'mini' has no {corpus}; use corpus 'news', or another source.")
        return _complete(*_from_folder(MINI_NEWS, _MINI_PARTS), corpus, "mini")
    if source == "hub":
        parts, absent = _from_hub(HUB_NAMES[corpus], revision)
        return _complete(parts, absent, corpus, "hub" if revision is None else f"hub@{revision}")
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise ValueError(f"source: {str(source)!r} is not 'hub', 'mini' or a folder.")
    parts, absent = _from_folder(folder / corpus if (folder / corpus).is_dir() else folder, _PARTS)
    return _complete(parts, absent, corpus, str(source))


def _from_folder(
    folder: Path, names: Mapping[str, tuple[str, tuple[str, ...]]]
) -> tuple[dict[str, Rows], dict[str, str]]:
    parts, absent = {}, {}
    for part, (configuration, splits) in names.items():
        candidates = [
            folder / configuration / f"{split}{ending}"
            for split in splits
            for ending in (".json", ".jsonl", ".json.gz", ".jsonl.gz")
        ]
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            absent[part] = f"{candidates[0]} is missing; get it from the Hub, or use source='hub'."
        else:
            parts[part] = [
                _row(value, configuration, f"{path}, entry {number}") for number, value in read_json_lines(path)
            ]
    return parts, absent


def _row(value: Any, configuration: str, place: str) -> dict[str, Any]:
    """A text or an object, as a row with the columns of its configuration in their usual order."""
    columns = _COLUMNS.get(configuration, ("text",))
    row = {"text": value} if isinstance(value, str) else value
    if not isinstance(row, dict) or not all(isinstance(row.get(column), str) for column in columns):
        found = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"{place}: text in {' and '.join(columns)} is expected; found {found}.")
    return {column: row[column] for column in columns}


def _from_hub(name: str, revision: str | None) -> tuple[dict[str, Rows], dict[str, str]]:
    from datasets import load_dataset

    parts, absent = {}, {}
    loaded: dict[str, Any] = {}
    for part, (configuration, splits) in _PARTS.items():
        if configuration not in loaded:
            try:
                loaded[configuration] = load_dataset(name, configuration, revision=revision)
            except (ConnectionError, FileNotFoundError) as problem:
                raise ValueError(
                    f"source: 'hub' could not reach {name} ({type(problem).__name__}); go online, unset "
                    "HF_HUB_OFFLINE, or pass a folder, or 'mini'."
                ) from problem
            except ValueError as problem:
                # The configuration is not there (Books have no scal and sust), or, offline, not in the cache.
                loaded[configuration] = {}
                absent[part] = str(problem)
        split = next((split for split in splits if split in loaded[configuration]), None)
        if split is None:
            absent.setdefault(part, f"{name} has no {configuration}/{splits[0]}.")
        else:
            rows = loaded[configuration][split]
            parts[part] = [_row(row, configuration, f"{name}, {configuration}/{split}") for row in rows]
    return parts, absent


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
