"""Fluency: the probability that a sequence classifier finds a generated text to be no gibberish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from unlearn_hf.likelihood.one_pass import PartialResults, evaluating, run_pass
from unlearn_hf.models.paths import check_classifier_path

MAX_TOKENS = 32
"""Tokens of a text that are judged, as in open-unlearning."""


@dataclass(frozen=True)
class JudgedText:
    """A text for the classifier."""

    key: str
    text: str
    length: int = MAX_TOKENS


class FluencyClassifier:
    """Probability of the label `label`, by a classifier on the hub or in a folder, loaded when it is first used.

    open-unlearning takes `madhurjindal/autonlp-Gibberish-Detector-492513457`, whose first label is `clean`, and the
    first 32 tokens of each answer.

    Args:
        name: hub id or folder of a sequence classifier with its tokenizer.
        label: of texts that are no gibberish.

    Raises:
        ValueError: when there is no such classifier, or it has no such label.

    Source:
        Dorna et al. 2025, arXiv 2506.12618, appendix F.
    """

    def __init__(self, name: str, label: str = "clean") -> None:
        check_classifier_path(name, "fluency_model")
        with self._naming(name):
            labels = {
                str(each).lower(): int(place) for place, each in AutoConfig.from_pretrained(name).id2label.items()
            }
        if label.lower() not in labels:
            raise ValueError(f"fluency_label: {label!r} is no label of {name!r}; choose one of {', '.join(labels)}.")
        self.name, self.label, self.place = name, label, labels[label.lower()]

    @staticmethod
    @contextmanager
    def _naming(name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as problem:
            raise ValueError(f"fluency_model: {name!r} cannot be loaded: {problem}") from problem

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        with self._naming(self.name):
            model = AutoModelForSequenceClassification.from_pretrained(self.name)
            return AutoTokenizer.from_pretrained(self.name), model

    def scores(
        self,
        texts: Mapping[str, str],
        device: torch.device,
        *,
        batch_size: int = 32,
        accelerator: Accelerator | None = None,
        partial: PartialResults | None = None,
    ) -> dict[str, float]:
        """Probability of the label for each text by its key, in [0, 1], in float32 whatever the precision of training.

        Args:
            texts: key -> text.
            device: where the classifier runs.
            batch_size: texts per forward pass.
            accelerator: shares the work out over its processes.
            partial: results of an interrupted run.

        Raises:
            ValueError: when the classifier cannot be loaded.
        """
        tokenizer, model = self._loaded
        model.to(device)

        def judge(batch: list[JudgedText]) -> list[float]:
            encoded = tokenizer(
                [item.text for item in batch],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            ).to(device)
            with torch.autocast(device.type, enabled=False):
                shares: list[float] = model(**encoded).logits.float().softmax(-1)[:, self.place].tolist()
            return shares

        with evaluating(model):
            return run_pass(
                "fluency",
                [JudgedText(key, text) for key, text in texts.items()],
                judge,
                batch_size=batch_size,
                token_budget=batch_size * MAX_TOKENS,
                description="Fluency",
                accelerator=accelerator,
                partial=partial or PartialResults(None, ""),
            )
