"""MUSE's evaluation of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from unlearn_hf.benchmarks.benchmark_of_log import read_reference
from unlearn_hf.benchmarks.muse.data import MuseData
from unlearn_hf.benchmarks.muse.metrics import LENGTH_OPEN_UNLEARNING, aggregate_muse
from unlearn_hf.common.checks import check_count
from unlearn_hf.common.renamed import renamed_arguments
from unlearn_hf.evaluation.engine import Engine
from unlearn_hf.evaluation.evaluator import TableEvaluator
from unlearn_hf.evaluation.generation import GenerationSettings
from unlearn_hf.evaluation.metric_value import MetricValue
from unlearn_hf.evaluation.requests import ContinuationRequest, Request, TextRequest
from unlearn_hf.evaluation.sample_table import Compatibility

VERBMEM_TOKENS, KNOWMEM_TOKENS = 128, 32
KNOWMEM_CUTS = ("\n\n", "\nQuestion", "Question:")
"""Where an answer ends, when the model goes on to ask itself the next question."""


class MuseEvaluator(TableEvaluator):
    """VerbMem, KnowMem on forget and retain set, PrivLeak and membership attacks on MUSE.

    - VerbMem: 128 greedy tokens after each prompt against how the text goes on (its first 128 tokens, BOS among
      them); besides, extraction strength and exact memorisation of that continuation.
    - KnowMem: 32 greedy tokens after ten questions with answers and the question itself; utility is KnowMem on the
      retain set.
    - PrivLeak: Min-40 % over all tokens of forget and holdout texts.

    Args:
        muse: the data; a metric whose part is absent is left out.
        retain_results: evaluation of the retrained model, for PrivLeak: a result folder or file of ours, a log of
            open-unlearning, or a per-sample table. Without one, PrivLeak on the official corpora is relative to the
            constant of MUSE's own evaluation.
        batch_size: most sequences per forward pass.
        max_rows: evaluate only the first rows of each set (a quick look).
        max_length: tokens per prompt and reference of VerbMem where they are scored, BOS among them.
        compatibility: `open_unlearning`: that framework's stemming, Min-K without each text's last token, untruncated
            references, and formula of PrivLeak.
        resume: see `TableEvaluator`.
        max_text_tokens: tokens beside BOS that texts of PrivLeak and other attacks are cut to. By default none is cut,
            as in MUSE's own evaluation; open-unlearning cuts them to 2048. PrivLeak relative to a constant is left out
            where texts were cut otherwise than those that the constant comes from.
        trailing_space: whether KnowMem's prompts end with the space before the answer, as MUSE's do. By default they
            do, except on the mini corpus: a small byte-level vocabulary has that space only as part of a word.

    Raises:
        ValueError: for unknown choices, sizes that are not above zero, data without any of the parts, and a reference
            that cannot be read or is not over the rows that are evaluated.

    Source:
        Shi et al. 2024, arXiv 2407.06460, section 3, with the constants of its released evaluation.
    """

    benchmark = "muse"

    @renamed_arguments(reference="retain_results")
    def __init__(
        self,
        muse: MuseData,
        retain_results: str | os.PathLike[str] | pd.DataFrame | None = None,
        batch_size: int = 16,
        max_rows: int | None = None,
        max_length: int = 2048,
        compatibility: Compatibility = None,
        resume: bool = False,
        trailing_space: bool | None = None,
        max_text_tokens: int | None = None,
    ) -> None:
        check_count("max_text_tokens", max_text_tokens)
        if max_text_tokens is None and compatibility is not None:
            max_text_tokens = LENGTH_OPEN_UNLEARNING
        self.max_text_tokens = max_text_tokens
        super().__init__(
            Engine("plain", batch_size, max_length=max_length), resume, max_rows, compatibility=compatibility
        )
        self.muse = muse
        self.trailing_space = muse.source != "mini" if trailing_space is None else trailing_space
        if not self.requests():
            raise ValueError(
                f"muse: {muse.split} from {muse.source} has none of the parts that are evaluated (verbmem, knowmem, "
                f"privleak); it has {', '.join(muse)}."
            )
        self.reference = self.fitting_reference(
            read_reference(retain_results, self.benchmark, self.corpus), truth_ratios=False
        )

    def requests(self) -> Sequence[Request]:
        """All parts that the data have."""
        requests: list[Request] = []
        stemmed = self.compatibility is not None
        if "verbmem_forget" in self.muse:
            requests.append(
                ContinuationRequest(
                    "verbmem_forget",
                    [{"prompt": row["prompt"], "reference": row["gt"]} for row in self._rows("verbmem_forget")],
                    GenerationSettings(VERBMEM_TOKENS),
                    reference_tokens=None if stemmed else VERBMEM_TOKENS,
                    scored=True,
                    use_stemmer=stemmed,
                )
            )
        for name in ("forget", "retain"):
            questions, shots = f"knowmem_{name}_qa", f"knowmem_{name}_qa_icl"
            if questions in self.muse and shots in self.muse:
                rows = knowmem_rows(self._rows(questions), self.muse[shots].to_list(), self.trailing_space)
                settings = GenerationSettings(KNOWMEM_TOKENS)
                requests.append(
                    ContinuationRequest(f"knowmem_{name}", rows, settings, cuts=KNOWMEM_CUTS, use_stemmer=stemmed)
                )
        requests += [
            TextRequest(split, self._rows(f"privleak_{split}"), stemmed, self.max_text_tokens)
            for split in ("forget", "holdout")
            if f"privleak_{split}" in self.muse
        ]
        return requests

    def _rows(self, part: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.muse[part].to_list()
        return rows[: self.max_rows]

    @property
    def corpus(self) -> str:
        """Which constants of the official evaluation serve: those of its own corpora, none for others."""
        return "other" if self.muse.source == "mini" else self.muse.split

    def settings(self) -> dict[str, Any]:
        """The corpus and how texts are cut too, which say what PrivLeak is relative to."""
        return super().settings() | {"corpus": self.corpus, "max_text_tokens": self.max_text_tokens}

    def aggregate(
        self, samples: pd.DataFrame, settings: dict[str, Any], fingerprint: str
    ) -> Mapping[str, MetricValue]:
        """Every MUSE aggregate."""
        return aggregate_muse(
            samples,
            self.reference,
            settings["corpus"],
            self.compatibility,
            settings=settings,
            fingerprint=fingerprint,
        )


def knowmem_rows(
    questions: Sequence[Mapping[str, Any]], shots: Sequence[Mapping[str, Any]], trailing_space: bool = True
) -> list[dict[str, Any]]:
    """Prompts with all shots before each question; each ends with `Answer:`, by default followed by a space."""
    before = "".join(f"Question: {shot['question']}\nAnswer: {shot['answer']}\n\n" for shot in shots)
    end = " " if trailing_space else ""
    return [
        {"prompt": f"{before}Question: {row['question']}\nAnswer:{end}", "reference": row["answer"]}
        for row in questions
    ]
