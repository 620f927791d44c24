"""Requests that followed each other on one model, and how each was judged after every run."""

from __future__ import annotations

from collections.abc import Sequence

from unlearn_hf.common.ledger import LedgerEntry
from unlearn_hf.report.runs import Run


def request_chains(runs: Sequence[Run]) -> list[list[LedgerEntry]]:
    """The ledgers of the runs; one that another begins with is left out."""
    ledgers: dict[str, list[LedgerEntry]] = {}
    for run in runs:
        if run.ledger:
            ledgers.setdefault(run.ledger[-1].fingerprint, run.ledger)
    inner = {entry.fingerprint for ledger in ledgers.values() for entry in ledger[:-1]}
    return [ledger for last, ledger in ledgers.items() if last not in inner]
