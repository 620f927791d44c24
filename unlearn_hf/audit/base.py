"""What an attack of the audit is: values per row of an attacked model; and the registry of all of them.

Membership attacks (`evaluation.attacks`) score texts; an attack here is on a whole model, which it may copy and
change. A unit is imported when it is asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from unlearn_hf.common.registry import Registry
from unlearn_hf.evaluation.engine import Engine, settings_fingerprint
from unlearn_hf.evaluation.requests import Request, SplitRequest
from unlearn_hf.likelihood.one_pass import PartialResults

MEASURES = ("probability", "extraction_strength", "exact_memorization", "rouge_l_recall")
"""Of each answer, in [0, 1]; higher: more of the row is still there."""


@dataclass(frozen=True)
class Findings:
    """What an attack found.

    Attributes:
        rows: numbers of the rows that were judged.
        values: measure -> a value for each of them; `None` where a row has none.
    """

    rows: list[int]
    values: dict[str, list[float | None]]


@dataclass(frozen=True)
class AuditPass:
    """What an attack may use.

    Attributes:
        model: the model that is attacked; an attack that changes it takes `copied_model`.
        tokenizer: its tokenizer.
        engine: runs a model over requests, with the template and lengths of the evaluation.
        forget: rows to forget, with `question` and `answer`.
        retain: rows to keep.
        holdout: rows that no model has seen, where there are some.
        samples: sampled answers of each question.
        seed: of what is drawn.
        accelerator: shares work out over processes.
        folder: where results of an interrupted audit are kept.
        retain_model: the retain-only model by name, where it is known.
        earlier: what the same attack found on the audited run, for other models.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    engine: Engine
    forget: Sequence[Mapping[str, Any]]
    retain: Sequence[Mapping[str, Any]]
    holdout: Sequence[Mapping[str, Any]] = ()
    samples: int = 32
    seed: int = 0
    accelerator: Accelerator | None = None
    folder: Path | None = None
    retain_model: str | None = None
    earlier: Findings | None = None
    memory: dict[str, Any] = field(default_factory=dict)

    def copied_model(self) -> nn.Module:
        """A copy in memory that may be changed; adapters are merged into it."""
        copied: Any = copy.deepcopy(self.model)
        return copied.merge_and_unload() if hasattr(copied, "peft_config") else copied

    def run(self, model: nn.Module, requests: Sequence[Request]) -> pd.DataFrame:
        """The per-sample table of requests; an interrupted pass goes on."""
        engine = replace(self.engine, seconds={})
        key = settings_fingerprint(engine.fingerprint(model, self.tokenizer, self.accelerator))
        partial = PartialResults(self.folder, key)
        return engine.run(model, self.tokenizer, requests, accelerator=self.accelerator, partial=partial)

    def measured(
        self, model: nn.Module, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int] | None = None
    ) -> Findings:
        """The `MEASURES` of rows: those of `numbers`, or all."""
        chosen = list(range(len(rows)) if numbers is None else numbers)
        table = self.run(model, [SplitRequest("audit", [rows[number] for number in chosen], details=True)])
        table["probability"] = np.exp(-table["answer_mean_nll"])
        return Findings(chosen, {name: _values(table, name) for name in MEASURES})


def _values(table: pd.DataFrame, name: str) -> list[float | None]:
    """A column; an empty answer has no memorisation."""
    if name not in table:
        return [None] * len(table)
    return [None if pd.isna(value) else float(value) for value in table[name]]


class AuditAttack:
    """An attack on a model; a subclass overrides `findings`.

    Attributes:
        summary: what it does, in a few words.
        paper: where it comes from.
        cost: what it costs, in words.
        version: of our implementation.
        compared_by: `R` (rise against the rise of the retain-only model), `Q` (before over after), or `None` where
            there is no before.
        changes_model: whether it attacks a changed copy; such attacks are not made on the target.
        judges: the rows that its values are of.
        needs_holdout: whether it is left out where no holdout rows are.
    """

    summary: str = ""
    paper: str = ""
    cost: str = ""
    version: int = 1
    compared_by: Literal["R", "Q"] | None = None
    changes_model: bool = False
    judges: Literal["forget", "retain"] = "forget"
    needs_holdout: bool = False

    def variants(self, samples: int) -> tuple[str, ...]:
        """Names of what is done, each with findings of its own."""
        return ("all",)

    def findings(self, run: AuditPass, variant: str) -> Findings:
        """Attack, and judge.

        Raises:
            ValueError: where the model or the rows do not allow it.
        """
        raise NotImplementedError


AUDIT_ATTACKS: Registry[AuditAttack] = Registry(
    "audit_attack",
    {
        "memorisation": "unlearn_hf.audit.memorisation:MEMORISATION",
        "quantisation": "unlearn_hf.audit.quantisation:QUANTISATION",
        "sampling": "unlearn_hf.audit.sampling:SAMPLING",
        "relearning": "unlearn_hf.audit.relearning:RELEARNING",
        "rewording": "unlearn_hf.audit.rewording:REWORDING",
        "membership": "unlearn_hf.audit.membership:MEMBERSHIP",
        "neighbours": "unlearn_hf.audit.neighbours:NEIGHBOURS",
    },
)
