"""Answers to questions, greedy or sampled, and what of the reference answer is in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unlearn_hf.data.encoding import encode_prompt
from unlearn_hf.evaluation.generation import GeneratedText, GenerationSettings
from unlearn_hf.evaluation.metrics.rouge import rouge_scores
from unlearn_hf.evaluation.requests import Encoder, Request, result_key
from unlearn_hf.evaluation.verdict.rows import JudgedRow


@dataclass(frozen=True)
class AnswersRequest(Request):
    """Questions, or other prompts, for the engine.

    Attributes:
        rows: rows with `question` and `answer`.
        generation: how to answer.
        beginning: words that the answer is made to begin with.
    """

    generation: GenerationSettings
    beginning: str = ""

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
        """Of each answer the ROUGE-L recall, and whether it says a key word of the reference, as the verdict asks."""
        found = generations[result_key(self.split, index, "generation")]
        texts = [found] if isinstance(found, str) else found
        row = self.rows[index]
        judged = JudgedRow(index, row["question"], row["answer"], (), ())
        return {
            "recalls": rouge_scores(texts, [row["answer"]] * len(texts), "rougeL"),
            "key_words": [bool(judged.keys_in(text)) for text in texts],
        }
