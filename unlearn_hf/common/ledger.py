"""The ledger of requests, `ledger.jsonl`: what a model was asked to forget, one request after the other, without text.

Each line carries the hash of the line before, so a ledger that was edited or cut is told from one that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from unlearn_hf.common.files import read_json_lines, write_text

LEDGER = "ledger.jsonl"
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("request", "run", "model"), str),
    **dict.fromkeys(("date", "parent", "method", "previous"), (str, type(None))),
    **dict.fromkeys(("rows", "verdict", "earlier"), dict),
}


@dataclass(frozen=True)
class LedgerEntry:
    """One request, a line of the ledger.

    Attributes:
        request: its id, unlike the others' of the ledger.
        date: when the run ended, in UTC.
        run: folder of the run.
        parent: folder of the run whose model it began with; `None` for the first of a chain.
        method: the method.
        rows: of the rows to forget their number (`count`), the hash of all (`sha256`), and a hash each
            (`fingerprints`; none where the rows of a first run could not be read any more).
        verdict: `forgotten`, `kept`, and how many rows leak (`leaking`) of those that were known before (`known`).
        earlier: the same for each earlier request, by id, of the model that this run left; with `why` where it was
            not measured.
        model: hash of the model's files.
        previous: hash of the line before, `None` for the first.
    """

    request: str
    date: str | None
    run: str
    parent: str | None
    method: str | None
    rows: dict[str, Any]
    verdict: dict[str, Any]
    earlier: dict[str, dict[str, Any]]
    model: str
    previous: str | None

    def verdict_on(self, entry: LedgerEntry) -> dict[str, Any]:
        """What this run found of a request; empty where it came later."""
        return self.verdict if entry is self else self.earlier.get(entry.request, {})

    @property
    def line(self) -> str:
        """The entry as it is written."""
        return json.dumps(asdict(self))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the line."""
        return hashlib.sha256(self.line.encode()).hexdigest()


def read_ledger(folder: Path) -> list[LedgerEntry]:
    """The requests in the ledger of a run folder, oldest first; none where there is no ledger.

    Raises:
        ValueError: naming file and line of what is damaged, or does not follow the line before.
    """
    path = folder / LEDGER
    if not path.is_file():
        return []
    entries: list[LedgerEntry] = []
    for number, value in read_json_lines(path):
        place = f"{path}, line {number}"
        if not isinstance(value, dict) or set(value) != {item.name for item in fields(LedgerEntry)}:
            raise ValueError(f"{place}: it is no line of a ledger; put back the file as it was written.")
        wrong = [name for name, kind in _KINDS.items() if not isinstance(value[name], kind)]
        wrong += [name for name, each in value["earlier"].items() if not isinstance(each, dict)] if not wrong else []
        if wrong:
            raise ValueError(f"{place}: {wrong[0]} is damaged; put back the file as it was written.")
        if value["previous"] != (entries[-1].fingerprint if entries else None):
            raise ValueError(
                f"{place}: it does not follow the line before, which was changed or lost; put back the file as it was "
                "written."
            )
        entries.append(LedgerEntry(**value))
    if not entries:
        raise ValueError(f"{path}: it is empty; put back the file as it was written.")
    return entries


def write_ledger(folder: Path, entries: Sequence[LedgerEntry]) -> None:
    """Write the ledger of a run folder, whole or not at all."""
    write_text(folder / LEDGER, "".join(entry.line + "\n" for entry in entries))
