"""TOFU's evaluation of a model."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from unlearn_hf.benchmarks.benchmark_of_log import read_reference
from unlearn_hf.benchmarks.tofu.data import TofuData
from unlearn_hf.benchmarks.tofu.metrics import aggregate_tofu
from unlearn_hf.common.renamed import renamed_arguments
from unlearn_hf.evaluation.attacks.base import AttackPass, add_scores, chosen_attacks
from unlearn_hf.evaluation.engine import Engine
from unlearn_hf.evaluation.evaluator import TableEvaluator
from unlearn_hf.evaluation.generation import GenerationSettings
from unlearn_hf.evaluation.metric_value import MetricValue
from unlearn_hf.evaluation.requests import SplitRequest
from unlearn_hf.evaluation.sample_table import OFFICIAL_ROWS, Compatibility, Protocol, extraction_of
from unlearn_hf.likelihood.one_pass import PartialResults

_PARTS = {
    "forget": ("forget_perturbed", ("answer", "paraphrase", "perturbed")),
    "retain": ("retain_perturbed", ("answer", "paraphrase", "perturbed")),
    "real_authors": ("real_authors", ("answer", "perturbed")),
    "world_facts": ("world_facts", ("answer", "perturbed")),
    "holdout": ("holdout", ("answer",)),
}


class TofuEvaluator(TableEvaluator):
    """Prob, ROUGE-L recall, truth ratio, model utility, forget quality, memorisation and privacy on TOFU.

    Args:
        tofu: the data.
        retain_results: evaluation of the retain model on the same forget rows, for forget quality and PrivLeak: a
            result folder or file of ours, a log of TOFU or open-unlearning, or a per-sample table.
        template: prompt template.
        batch_size: most sequences per forward pass.
        max_new_tokens: most tokens per generated answer.
        protocol: `all` rows; `official`: the first 300 of each set, and at most 200 tokens of prompt, padding and
            continuation together.
        compatibility: `open_unlearning` gives plain names to that framework's definitions.
        max_rows: evaluate only the first rows of each set (a quick look; not comparable with anything else).
        max_length: tokens per scored sequence.
        resume: see `TableEvaluator`.
        attacks: membership attacks that need passes of their own, by their names in the registry. The others are
            always made.
        attack_model: a model that shares tokenizer and template, or its path, for the attack `reference`; it is run
            once per evaluator.
        fluency_model: classifier of the answers, for `forget_fluency` and utility; see `FluencyClassifier`.
        fluency_label: its label of texts that are no gibberish.

    Raises:
        ValueError: for unknown choices, sizes that are not above zero, and a reference that cannot be read or is not
            over the rows that are evaluated.
    """

    benchmark = "tofu"

    @renamed_arguments(reference="retain_results", reference_model="attack_model")
    def __init__(
        self,
        tofu: TofuData,
        retain_results: str | os.PathLike[str] | pd.DataFrame | None = None,
        template: str = "auto",
        batch_size: int = 32,
        max_new_tokens: int = 200,
        protocol: Protocol = "all",
        compatibility: Compatibility = None,
        max_rows: int | None = None,
        max_length: int = 512,
        resume: bool = False,
        attacks: Sequence[str] = (),
        attack_model: nn.Module | str | None = None,
        fluency_model: str | None = None,
        fluency_label: str = "clean",
    ) -> None:
        self.attacks = chosen_attacks(attacks, attack_model)
        generation = GenerationSettings(max_new_tokens, 200 if protocol == "official" else None)
        engine = Engine(template, batch_size, max_length=max_length, generation=generation)
        super().__init__(engine, resume, max_rows, protocol, compatibility, fluency_model, fluency_label)
        self.tofu = tofu
        self.attack_model = attack_model
        self.reference = self.fitting_reference(
            read_reference(retain_results, self.benchmark, tofu.split), truth_ratios=_PARTS["forget"][0] in tofu
        )

    def requests(self) -> list[SplitRequest]:
        """All sets that the data have."""
        most = min(self.max_rows or sys.maxsize, OFFICIAL_ROWS if self.protocol == "official" else sys.maxsize)
        return [
            SplitRequest(
                split,
                self.tofu[part].to_list()[:most],
                scored,
                details=split in ("forget", "holdout"),
                generated=split != "holdout",
            )
            for split, (part, scored) in _PARTS.items()
            if part in self.tofu
        ]

    def settings(self) -> dict[str, Any]:
        """The split too: splits from `forget10` on share their rows, but not their retain model."""
        return super().settings() | {"split": self.tofu.split}

    def aggregate(
        self, samples: pd.DataFrame, settings: dict[str, Any], fingerprint: str
    ) -> Mapping[str, MetricValue]:
        """Every TOFU aggregate."""
        return aggregate_tofu(
            samples,
            self.reference,
            self.protocol,
            self.compatibility,
            settings={**settings, "attack_model": self.memory.get("attack_model")},
            fingerprint=fingerprint,
        )

    def extend(
        self,
        samples: pd.DataFrame,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator | None,
        partial: PartialResults | None,
    ) -> pd.DataFrame:
        """Scores of the attacks that need passes of their own, and definitions that a compatibility changes."""
        run = AttackPass(
            model,
            tokenizer,
            [replace(request, scored=("answer",), generated=False) for request in self.requests() if request.details],
            self.engine,
            self.memory,
            self.attack_model,
            accelerator,
            partial,
            self.compatibility,
        )
        add_scores(samples, self.attacks, run)
        return extraction_of(samples, self.compatibility, ends=1)
