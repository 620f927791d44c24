"""What an attack of the audit is: values per row of an attacked model; and the registry of all of them.

Membership attacks (`evaluation.attacks`) score single texts; an audit attack is on a whole model, which it may copy
and change. The declarations are light: what is heavy is imported inside the methods.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unlearn_hf.common.checks import check_count, check_positive
from unlearn_hf.common.registry import Registry

if TYPE_CHECKING:
    import pandas as pd
    from accelerate import Accelerator
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from unlearn_hf.evaluation.engine import Engine
    from unlearn_hf.evaluation.requests import Request

PARTIAL = "audit_partial"
"""Folder inside a run folder for results of an audit that is not done."""
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
class AuditSettings:
    """How an audit attacks.

    Attributes:
        samples: sampled answers of each question.
        k: sizes of the draws that leak@k is of; `()` takes the powers of two up to `samples`.
        seed: of everything that is drawn.
        relearning_steps: optimizer steps of relearning; by default one epoch.
        relearning_rate: learning rate of relearning; by default that of its source.
    """

    samples: int = 32
    k: tuple[int, ...] = ()
    seed: int = 0
    relearning_steps: int | None = None
    relearning_rate: float | None = None

    def __post_init__(self) -> None:
        """Raise a `ValueError` that names the field unless the settings can be had."""
        check_count("samples", self.samples)
        check_count("relearning_steps", self.relearning_steps)
        check_positive("relearning_rate", self.relearning_rate)
        if wrong := [k for k in self.k if not 1 <= k <= self.samples]:
            raise ValueError(
                f"k: {wrong[0]} is not from 1 to the {self.samples} samples; draw more with --samples, or give a "
                "smaller k."
            )


@dataclass(frozen=True)
class Sizes:
    """Numbers of rows, and settings, from which the work of an attack follows."""

    forget: int
    retain: int
    holdout: int
    settings: AuditSettings


@dataclass(frozen=True)
class Work:
    """What an attack does to one model.

    Attributes:
        texts: texts that go through the model.
        answers: answers that are generated.
        steps: optimizer steps.
    """

    texts: int = 0
    answers: int = 0
    steps: int = 0


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
        settings: how to attack.
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
    settings: AuditSettings = field(default_factory=AuditSettings)
    accelerator: Accelerator | None = None
    folder: Path | None = None
    retain_model: str | None = None
    earlier: Findings | None = None

    def copied_model(self) -> nn.Module:
        """A copy in memory that may be changed; adapters are merged into it."""
        copied: Any = copy.deepcopy(self.model)
        return copied.merge_and_unload() if hasattr(copied, "peft_config") else copied

    def run(self, model: nn.Module, requests: Sequence[Request]) -> pd.DataFrame:
        """The per-sample table of requests; an interrupted pass goes on."""
        from unlearn_hf.likelihood.one_pass import PartialResults

        engine = replace(self.engine, seconds={})
        partial = PartialResults(self.folder, engine.fingerprint(model, self.tokenizer, self.accelerator))
        return engine.run(model, self.tokenizer, requests, accelerator=self.accelerator, partial=partial)

    def measured(
        self, model: nn.Module, rows: Sequence[Mapping[str, Any]], numbers: Sequence[int] | None = None
    ) -> Findings:
        """The `MEASURES` of rows: those of `numbers`, or all."""
        import numpy as np
        import pandas as pd

        from unlearn_hf.evaluation.requests import SplitRequest

        chosen = list(range(len(rows)) if numbers is None else numbers)
        table = self.run(model, [SplitRequest("audit", [rows[number] for number in chosen], details=True)])
        table["probability"] = np.exp(-table["answer_mean_nll"])
        # An empty answer has no memorisation.
        columns = table.reindex(columns=list(MEASURES)).to_dict("list")
        return Findings(
            chosen,
            {str(name): [None if pd.isna(each) else float(each) for each in found] for name, found in columns.items()},
        )


class AuditAttack:
    """An attack on a model; a subclass overrides `findings`.

    Attributes:
        summary: what it does, in a few words.
        paper: where it comes from.
        version: of our implementation.
        compared_by: `R` (rise against the rise of the retain-only model), `Q` (before over after), or `None` where
            there is no before.
        changes_model: whether it attacks a changed copy; such attacks are not made on the target.
        cheap: whether it is made unless others are named.
        judges: the rows that its values are of.
        needs_holdout: whether it is left out where no holdout rows are.
        shown: patterns of the measures that the short table shows; all by default.
    """

    summary: str = ""
    paper: str = ""
    version: int = 1
    compared_by: Literal["R", "Q"] | None = None
    changes_model: bool = False
    cheap: bool = True
    judges: Literal["forget", "retain"] = "forget"
    needs_holdout: bool = False
    shown: tuple[str, ...] = ("*",)

    def variants(self) -> tuple[str, ...]:
        """Names of what is done, each with findings of its own."""
        return ("all",)

    def work(self, sizes: Sizes) -> Work:
        """What it costs; by default an evaluation of the forget rows for each variant."""
        times = len(self.variants())
        return Work(texts=times * sizes.forget, answers=times * sizes.forget)

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
        "relearning": "unlearn_hf.audit.relearning:RELEARNING",
        "relearning_lora": "unlearn_hf.audit.relearning:RELEARNING_LORA",
        "sampling": "unlearn_hf.audit.sampling:SAMPLING",
        "rewording": "unlearn_hf.audit.rewording:REWORDING",
        "membership": "unlearn_hf.audit.membership:MEMBERSHIP",
        "neighbours": "unlearn_hf.audit.neighbours:NEIGHBOURS",
    },
)
