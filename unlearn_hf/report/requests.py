"""Requests that followed each other on one model, and how each was judged after every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_hf.common.ledger import LedgerEntry
from unlearn_hf.report.runs import Run


@dataclass(frozen=True)
class RequestLine:
    """A request, and the verdict on it after each run of the chain.

    Attributes:
        entry: its line of the ledger.
        verdicts: for each run of the chain what it found; empty for runs before the request.
    """

    entry: LedgerEntry
    verdicts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class RequestChain:
    """A ledger as a table.

    Attributes:
        runs: names of the runs, oldest first.
        lines: one for each request.
    """

    runs: Sequence[str]
    lines: Sequence[RequestLine]


def request_chains(runs: Sequence[Run]) -> list[RequestChain]:
    """The ledgers of the runs as tables; one that another begins with is left out."""
    ledgers: dict[str, list[LedgerEntry]] = {}
    for run in runs:
        if run.ledger:
            ledgers.setdefault(run.ledger[-1].fingerprint, run.ledger)
    inner = {entry.fingerprint for ledger in ledgers.values() for entry in ledger[:-1]}
    return [_chain(ledger) for last, ledger in ledgers.items() if last not in inner]


def _chain(ledger: Sequence[LedgerEntry]) -> RequestChain:
    lines = [
        RequestLine(
            entry,
            [later.verdict if later is entry else later.earlier.get(entry.request, {}) for later in ledger],
        )
        for entry in ledger
    ]
    return RequestChain([Path(entry.run).name for entry in ledger], lines)
