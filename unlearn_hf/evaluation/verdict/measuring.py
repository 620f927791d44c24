"""What a verdict is read from: likelihoods and answers, greedy and sampled, of the rows to forget and to keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from unlearn_hf.common.files import read_json, write_json
from unlearn_hf.data.labels import IGNORE_INDEX
from unlearn_hf.evaluation.engine import Engine, settings_fingerprint
from unlearn_hf.evaluation.generation import GeneratedText, GenerationSettings
from unlearn_hf.evaluation.requests import Encoder, Request, result_key
from unlearn_hf.evaluation.token_scores import ScoredText
from unlearn_hf.evaluation.verdict.rows import JudgedRow

_MOST_NEW_TOKENS = 96
_BEYOND = 8
"""Tokens by which an answer may be longer than the true one: what leaks comes early, or in other words."""

Measurement = dict[str, list[dict[str, Any]]]
"""For each set (`forget`, `retain`, `holdout`) what was found of each of its rows."""


@dataclass(frozen=True)
class JudgedRequest(Request):
    """Likelihoods, and for rows to forget answers, for the engine.

    Attributes:
        rows: rows with `row`, a `JudgedRow`.
        samples: sampled answers of each row; 0 asks for likelihoods alone.
    """

    samples: int = 0

    def _judged(self) -> list[JudgedRow]:
        return [row["row"] for row in self.rows]

    def settings(self) -> Mapping[str, Any]:
        """The number of samples."""
        return {"samples": self.samples}

    def texts(self, encoder: Encoder) -> list[ScoredText]:
        """The answer and its paraphrases."""
        texts = []
        for index, row in enumerate(self._judged()):
            ids = [*row.prompt_ids, *row.answer_ids]
            labels = [IGNORE_INDEX] * len(row.prompt_ids) + list(row.answer_ids)
            texts.append(ScoredText(result_key(self.split, index, "answer"), ids, labels))
            texts += [
                ScoredText(result_key(self.split, index, "paraphrase", choice), list(other), list(other_labels))
                for choice, (other, other_labels) in enumerate(row.paraphrases)
            ]
        return texts

    def prompts(self, encoder: Encoder, generation: GenerationSettings) -> list[GeneratedText]:
        """Each prompt once for the greedy answer and once for the sampled ones."""
        if not self.samples:
            return []
        longest = max((len(row.answer_ids) for row in self._judged()), default=1)
        budget = min(longest + _BEYOND, _MOST_NEW_TOKENS)
        greedy, sampled = (
            GenerationSettings(budget),
            GenerationSettings(budget, temperature=1.0),
        )
        found = []
        for index, row in enumerate(self._judged()):
            prompt = list(row.prompt_ids)
            found.append(GeneratedText(result_key(self.split, index, "greedy"), prompt, greedy, row.answer_ids))
            # One by one, so that samples of different rows share passes: prompts are short.
            found += [
                GeneratedText(result_key(self.split, index, "sampled", sample), prompt, sampled)
                for sample in range(self.samples)
            ]
        return found

    def table_row(
        self, index: int, scores: Mapping[str, Any], generations: Mapping[str, Any], encoder: Encoder
    ) -> dict[str, Any]:
        """Mean NLL of the answer and of its paraphrases, the greedy answer and the sampled ones."""

        def mean_nll(name: str, choice: int = 0) -> float:
            score = scores[result_key(self.split, index, name, choice)]
            return float(score["nll"] / score["tokens"])

        row = self._judged()[index]
        found: dict[str, Any] = {
            "nll": mean_nll("answer"),
            "paraphrase_nll": [mean_nll("paraphrase", choice) for choice in range(len(row.paraphrases))],
        }
        if self.samples:
            found["greedy"] = generations[result_key(self.split, index, "greedy")]
            found["sampled"] = [
                generations[result_key(self.split, index, "sampled", sample)] for sample in range(self.samples)
            ]
        return found


@dataclass
class Judge:
    """Measures a model on the rows of a verdict, and remembers how it was before unlearning.

    Args:
        forget: rows to forget.
        retain: rows to keep.
        holdout: rows that the model has never seen.
        samples: sampled answers of each forget row.
        forget_of: how many forget rows there are, of which `forget` is a part.
        held_back: whether no retain row here is trained on.
        batch_size: most sequences per forward pass.
        max_length: tokens per scored sequence.

    Attributes:
        before: what was found before unlearning.
        seconds: of each measurement.
    """

    forget: list[JudgedRow]
    retain: list[JudgedRow]
    holdout: list[JudgedRow]
    samples: int
    forget_of: int
    held_back: bool
    batch_size: int = 16
    max_length: int = 512
    before: Measurement | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Hash of the rows and of how they are measured."""
        rows = [[asdict(row) for row in rows] for rows in (self.forget, self.retain, self.holdout)]
        return settings_fingerprint(rows, self.samples, self.max_length)

    def measure(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, accelerator: Accelerator | None = None
    ) -> Measurement:
        """Measure `model`; all ranks take part, and all get everything.

        Raises:
            ValueError: when a likelihood is not finite.
        """
        sets = {"forget": self.forget, "retain": self.retain, "holdout": self.holdout}
        requests = [
            JudgedRequest(name, [{"row": row} for row in rows], self.samples if name == "forget" else 0)
            for name, rows in sets.items()
            if rows
        ]
        engine = Engine(batch_size=self.batch_size, max_length=self.max_length)
        table = engine.run(model, tokenizer, requests, accelerator=accelerator)
        columns = ["nll", "paraphrase_nll", "greedy", "sampled"]
        found: Measurement = {name: [] for name in sets}
        for record in table.to_dict("records"):
            values = {str(name): record[name] for name in columns if name in record}
            if record["split"] != "forget":
                values = {"nll": values["nll"]}
            found[str(record["split"])].append(values)
        return found

    def keep_before(self, path: Path) -> None:
        """Write what was found before unlearning, for a run that is resumed."""
        write_json(path, {"rows": self.fingerprint(), "before": self.before})

    def read_before(self, path: Path) -> bool:
        """Take up what `keep_before` wrote, if it is there and about the same rows."""
        if not path.is_file():
            return False
        content = read_json(path)
        if not isinstance(content, dict) or content.get("rows") != self.fingerprint():
            return False
        self.before = content["before"]
        return True
