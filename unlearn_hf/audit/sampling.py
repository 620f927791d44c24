"""Sampling: many answers to each question, of which one may say what the greedy answer does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unlearn_hf.audit.base import AuditAttack, AuditPass, Findings
from unlearn_hf.audit.leakage import deviation_bound, leak_at_k, leak_probability_bound, mean_bound
from unlearn_hf.data.encoding import encode_prompt
from unlearn_hf.evaluation.generation import GeneratedText, GenerationSettings
from unlearn_hf.evaluation.metrics.rouge import rouge_scores
from unlearn_hf.evaluation.requests import Encoder, result_key
from unlearn_hf.evaluation.token_scores import ScoredText

LEAK_RECALL = 0.5
"""ROUGE-L recall from which on a sample counts as a leak. The paper asks an NLI model too, hence our other name."""
_TOP_P = {"whole_distribution": 1.0, "nucleus": 0.9}


@dataclass(frozen=True)
class SampledAnswers:
    """Questions, or other prompts, and the ROUGE-L recall of each of several answers, for the engine.

    Attributes:
        split: name in the table.
        rows: rows with `question` and `answer`.
        generation: how to answer.
        beginning: words that the answer is made to begin with.
    """

    split: str
    rows: Sequence[Mapping[str, Any]]
    generation: GenerationSettings
    beginning: str = field(default="")

    def settings(self) -> Mapping[str, Any]:
        """Nothing that prompts and their settings do not say."""
        return {}

    def texts(self, encoder: Encoder) -> list[ScoredText]:
        """None."""
        return []

    def prompts(self, encoder: Encoder, generation: GenerationSettings) -> list[GeneratedText]:
        """The questions, each with the beginning of its answer."""
        begun = encoder.tokenizer(self.beginning, add_special_tokens=False)["input_ids"] if self.beginning else []
        return [
            GeneratedText(
                result_key(self.split, index, "generation"),
                encode_prompt(encoder.tokenizer, encoder.template, row["question"]) + list(begun),
                self.generation,
            )
            for index, row in enumerate(self.rows)
        ]

    def table_row(
        self, index: int, scores: Mapping[str, Any], generations: Mapping[str, Any], encoder: Encoder
    ) -> dict[str, Any]:
        """ROUGE-L recall of each answer."""
        found = generations[result_key(self.split, index, "generation")]
        texts = [found] if isinstance(found, str) else found
        return {"recalls": rouge_scores(texts, [self.rows[index]["answer"]] * len(texts), "rougeL")}


def powers_of_two(samples: int) -> list[int]:
    """1, 2, 4 ... and `samples` itself."""
    return sorted({2**power for power in range(samples.bit_length())} | {samples})


class Sampling(AuditAttack):
    """Answers drawn at temperature 1, from the whole distribution (leak@k) and from its likely part (bounds)."""

    summary = "sampled answers: the chance that one of k leaks by ROUGE, and bounds for answers not drawn"
    paper = "leak@k: arXiv 2511.04934; bounds: Scholten et al. 2025, arXiv 2410.03523"
    cost = "twice --samples answers to every forget question"

    def variants(self, samples: int) -> tuple[str, ...]:
        """Both ways to draw."""
        return tuple(_TOP_P)

    def findings(self, run: AuditPass, variant: str) -> Findings:
        """Draw, and judge each question by all of its samples."""
        settings = GenerationSettings(
            run.engine.generation.max_new_tokens,
            samples=run.samples,
            temperature=1.0,
            top_p=_TOP_P[variant],
            seed=run.seed,
        )
        recalls = [
            np.array(each) for each in run.run(run.model, [SampledAnswers("audit", run.forget, settings)])["recalls"]
        ]
        leaks = [int((each >= LEAK_RECALL).sum()) for each in recalls]
        values: dict[str, list[float | None]]
        if variant == "nucleus":
            values = {
                "rouge_mean": [float(each.mean()) for each in recalls],
                "rouge_mean_bound": [mean_bound(each) for each in recalls],
                "rouge_deviation_bound": [deviation_bound(each) for each in recalls],
                "rouge_leak_bound": [leak_probability_bound(count, run.samples) for count in leaks],
            }
        else:
            values = {
                f"rouge_leak@{k}": [leak_at_k(count, run.samples, k) for count in leaks]
                for k in powers_of_two(run.samples)
            }
        return Findings(list(range(len(run.forget))), values)


SAMPLING = Sampling()
