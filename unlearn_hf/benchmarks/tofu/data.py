"""TOFU: questions about invented authors, some of whom are to be forgotten.

Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs", 2024, https://arxiv.org/abs/2401.06121.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unlearn_hf.benchmarks.parts import BenchmarkData, load_from_hub, rows_file, source_folder, source_label
from unlearn_hf.benchmarks.tofu.benchmark import TOFU
from unlearn_hf.common.checks import check_choice
from unlearn_hf.common.files import read_objects, read_text
from unlearn_hf.data.mini import MINI_TOFU
from unlearn_hf.data.row_checks import check_holdout

_HUB_REFUSALS = ("open-unlearning/idk", "idk.jsonl")
_REFUSAL_FILES = ("idontknow.jsonl", "idk.jsonl")

Rows = list[dict[str, Any]]


class TofuData(BenchmarkData):
    """TOFU with one choice of authors to forget.

    Parts: `full`, `forget`, `retain` (question, answer); `forget_perturbed`, `retain_perturbed` (also
    `paraphrased_answer`, five `perturbed_answer`, `paraphrased_question`); `real_authors`, `world_facts` (three
    `perturbed_answer`); where the source has them `holdout` (authors that no model saw) and `idk` (refusals, a list of
    texts). `mini` also has `real_authors_facts` and `world_facts_facts`, to train a model from scratch on.
    """


def load_tofu(split: str = "forget10", source: str | Path = "hub", revision: str | None = None) -> TofuData:
    """Load TOFU.

    Forgetting `forgetP` means the last P percent of `full`; `retain` is the rest. The splits of 20 percent and more
    are those of the NPO paper, for which no files exist: they are cut from `full`, and `forget_perturbed` is that of
    `forget10`, which lies inside them; likewise `holdout` is `holdout10`.

    Args:
        split: `forget01`, `forget05`, `forget10`, `forget20`, `forget30`, `forget50` or `forget90`.
        source: `hub`; a folder with the official files (`forget10.json`, `retain90.json` ...); or `mini`, the
            bundled data of the same shape with 40 authors, of whom 01, 05 and 10 mean one, two and four.
        revision: commit or tag on the Hub.

    Returns:
        The data, a dict of `datasets.Dataset`.

    Raises:
        ValueError: for an unknown split or source, missing files, and holdout rows that are to be forgotten.
    """
    check_choice("split", split, TOFU.splits)
    folder, label = source_folder(source, MINI_TOFU), source_label(source, revision)
    reasons: dict[str, str] = {}

    def read(name: str) -> list[Any] | None:
        if folder is None:
            rows, reasons[name] = load_from_hub(TOFU.hub_datasets[""], name, revision=revision, split="train")
            return None if rows is None else rows.to_list()
        path = rows_file(folder / name)
        there = ", ".join(sorted(path.name for path in folder.iterdir() if ".json" in path.name)) or "none"
        reasons[name] = f"{folder / f'{name}.json'} is missing; files there: {there}."
        return read_objects(path) if path else None

    percent = int(split.removeprefix("forget"))
    evaluated = split.removeprefix("forget") if percent <= 10 else "10"
    # `full`, `forget` and `retain` are completed from each other.
    full, forget, retain = (read(name) for name in ("full", split, f"retain{100 - percent:02d}"))
    if full is not None and (forget is None or retain is None):
        boundary = len(full) - (len(forget) if forget else len(full) * percent // 100)
        forget, retain = forget or full[boundary:], retain or full[:boundary]
    if forget is None or retain is None:
        name = split if forget is None else f"retain{100 - percent:02d}"
        raise ValueError(f"{split} from {label}: neither {name} nor full is there. {reasons[name]}")
    names = {
        "forget_perturbed": f"forget{evaluated}_perturbed",
        "retain_perturbed": "retain_perturbed",
        "real_authors": "real_authors_perturbed",
        "world_facts": "world_facts_perturbed",
        "holdout": f"holdout{evaluated}",
        "real_authors_facts": "real_authors_facts",
        "world_facts_facts": "world_facts_facts",
    }
    parts: dict[str, list[Any] | None] = {"full": full or retain + forget, "forget": forget, "retain": retain}
    parts |= {part: read(name) for part, name in names.items()}
    parts["idk"], reasons["idk"] = _refusals(folder)
    check_holdout(parts["holdout"] or [], forget, f"{names['holdout']} from {label}")
    return TofuData(
        {part: rows for part, rows in parts.items() if rows is not None},
        split=split,
        source=label,
        absent={part: reasons[names.get(part, part)] for part, rows in parts.items() if rows is None},
    )


def _refusals(folder: Path | None) -> tuple[list[str] | None, str]:
    """Refusals, one a line, or why there are none; plain text in spite of the file's name."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if folder is None:
        try:
            path: Path | None = Path(hf_hub_download(*_HUB_REFUSALS, repo_type="dataset"))
        except (HfHubHTTPError, LocalEntryNotFoundError):
            path = None
    else:
        path = next((folder / name for name in _REFUSAL_FILES if (folder / name).is_file()), None)
    if path is None:
        return None, f"{folder or _HUB_REFUSALS[0]}/{_HUB_REFUSALS[1]} is not there, or could not be fetched."
    return [line.strip() for line in read_text(path).split("\n") if line.strip()], ""
