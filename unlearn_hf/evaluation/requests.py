"""What metrics need of one set of rows: texts to score, prompts to continue, and a row of the table for each.

Three kinds: `SplitRequest` for questions and answers, `ContinuationRequest` for raw prompts with a reference,
`TextRequest` for raw texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from unlearn_hf.data.encoding import encode_pair, encode_prompt, require_fast, special_prefix
from unlearn_hf.data.labels import IGNORE_INDEX
from unlearn_hf.data.templates import ChatTemplate, PromptTemplate
from unlearn_hf.evaluation.generation import GeneratedText, GenerationSettings
from unlearn_hf.evaluation.metrics.rouge import Measure, rouge_scores
from unlearn_hf.evaluation.token_scores import ScoredText

_FIELDS = {"answer": "answer", "paraphrase": "paraphrased_answer", "perturbed": "perturbed_answer"}


@dataclass(frozen=True)
class Encoder:
    """How rows become tokens.

    Attributes:
        tokenizer: a fast tokenizer.
        template: prompt template of questions.
        max_length: tokens per scored sequence.
    """

    tokenizer: PreTrainedTokenizerBase
    template: PromptTemplate | ChatTemplate
    max_length: int


def result_key(split: str, index: int, name: str, choice: int = 0) -> str:
    """Key of a text or prompt."""
    return f"{split}/{index}/{name}/{choice}"


@dataclass(frozen=True)
class Request:
    """What metrics need of one set of rows; a subclass overrides `table_row`, and what else is not empty for it.

    Attributes:
        split: name in the per-sample table.
        rows: the rows.
    """

    split: str
    rows: Sequence[Mapping[str, Any]]

    def settings(self) -> Mapping[str, Any]:
        """What results depend on beyond rows and engine, JSON-ready: what a subclass adds."""
        added = asdict(replace(self, rows=()))
        return {name: value for name, value in added.items() if name not in ("split", "rows")}

    def texts(self, encoder: Encoder) -> list[ScoredText]:
        """What is scored, in the order of the rows; keys are split/row/field/choice."""
        return []

    def prompts(self, encoder: Encoder, generation: GenerationSettings) -> list[GeneratedText]:
        """What is continued, with the engine's settings unless the request has its own."""
        return []

    def table_row(
        self, index: int, scores: Mapping[str, Any], generations: Mapping[str, Any], encoder: Encoder
    ) -> dict[str, Any]:
        """The columns of one row, from the results of both passes by key."""
        raise NotImplementedError


@dataclass(frozen=True)
class SplitRequest(Request):
    """What metrics need of one set of question-answer rows.

    Attributes:
        rows: rows with `question`, `answer` and, where scored, `paraphrased_answer` and `perturbed_answer`.
        scored: which of `answer`, `paraphrase`, `perturbed` get likelihoods.
        details: whether answers get token-level statistics (extraction, memorisation, membership scores).
        generated: whether the question is answered by greedy generation.
    """

    scored: tuple[str, ...] = ("answer",)
    details: bool = False
    generated: bool = True

    def settings(self) -> Mapping[str, Any]:
        """Nothing: what is scored follows from the columns, and the engine says how answers are generated."""
        return {}

    def texts(self, encoder: Encoder) -> list[ScoredText]:
        """Answers after their questions.

        Raises:
            ValueError: for a row without a single wrong answer, where they are scored.
        """
        texts = []
        for index, row in enumerate(self.rows):
            for name in self.scored:
                answers = row[_FIELDS[name]]
                if not isinstance(answers, str) and not answers:
                    raise ValueError(
                        f"{_FIELDS[name]}: row {index} of {self.split} has none; give it one, or leave the row away."
                    )
                for choice, answer in enumerate([answers] if isinstance(answers, str) else answers):
                    encoded = encode_pair(
                        encoder.tokenizer, encoder.template, row["question"], answer, encoder.max_length
                    )
                    details = self.details and name == "answer"
                    key = result_key(self.split, index, name, choice)
                    texts.append(ScoredText(key, encoded["input_ids"], encoded["labels"], answer, details))
        return texts

    def prompts(self, encoder: Encoder, generation: GenerationSettings) -> list[GeneratedText]:
        """The questions."""
        if not self.generated:
            return []
        prompts = []
        for index, row in enumerate(self.rows):
            ids = encode_prompt(encoder.tokenizer, encoder.template, row["question"])
            pair = encode_pair(encoder.tokenizer, encoder.template, row["question"], row["answer"], encoder.max_length)
            # What a model that has memorised the row will say, where the prompt's tokens begin those of the pair.
            guess = pair["input_ids"][len(ids) :] if pair["input_ids"][: len(ids)] == ids else []
            prompts.append(GeneratedText(result_key(self.split, index, "generation"), ids, generation, tuple(guess)))
        return prompts

    def table_row(
        self, index: int, scores: Mapping[str, Any], generations: Mapping[str, Any], encoder: Encoder
    ) -> dict[str, Any]:
        """Likelihoods, token-level statistics of the answer, generation and its ROUGE recall."""
        row = self.rows[index]
        result: dict[str, Any] = {}
        for name in self.scored:
            many = not isinstance(row[_FIELDS[name]], str)
            choices = range(len(row[_FIELDS[name]]) if many else 1)
            found = [_scored(scores[result_key(self.split, index, name, choice)], name) for choice in choices]
            result |= {column: [each[column] for each in found] for column in found[0]} if many else found[0]
        if self.generated:
            generation = generations[result_key(self.split, index, "generation")]
            reference = row["answer"]
            result |= {"prompt": row["question"], "generation": generation, "reference_text": reference}
            for name, rouge_type in (("rouge_1_recall", "rouge1"), ("rouge_l_recall", "rougeL")):
                result[name] = rouge_scores([generation], [reference], rouge_type)[0]
        return result


@dataclass(frozen=True)
class ContinuationRequest(Request):
    """Raw prompts, continued greedily and compared with a reference by ROUGE-L F1.

    Attributes:
        rows: rows with `prompt` and `reference`.
        generation: how to continue.
        reference_tokens: tokens that the reference is cut to, BOS among them; `None` takes it whole.
        cuts: the continuation ends at the first of these, looked for one after the other.
        scored: whether the reference also gets likelihood and token-level statistics, after the prompt and a space.
        use_stemmer: whether ROUGE stems words.
    """

    generation: GenerationSettings
    reference_tokens: int | None = None
    cuts: tuple[str, ...] = ()
    scored: bool = False
    use_stemmer: bool = False

    def texts(self, encoder: Encoder) -> list[ScoredText]:
        """References after their prompts, if scored; of a row that is too long, the end of the prompt is kept."""
        if not self.scored:
            return []
        tokenizer = encoder.tokenizer
        require_fast(tokenizer)
        texts = []
        for index, row in enumerate(self.rows):
            whole = f"{row['prompt']} {row['reference']}"
            encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids = list(encoded["input_ids"])
            labels = [
                token if end > len(row["prompt"]) + 1 else IGNORE_INDEX
                for token, (_, end) in zip(ids, encoded["offset_mapping"], strict=True)
            ]
            if self.reference_tokens is not None:
                first = next((place for place, label in enumerate(labels) if label != IGNORE_INDEX), len(ids))
                ids, labels = (each[: first + self.reference_tokens - 1] for each in (ids, labels))
            prefix = special_prefix(tokenizer, whole)
            room = encoder.max_length - len(prefix)
            ids, labels = prefix + ids[-room:], [IGNORE_INDEX] * len(prefix) + labels[-room:]
            key = result_key(self.split, index, "reference")
            texts.append(ScoredText(key, ids, labels, row["reference"], details=True, ends=False))
        return texts

    def prompts(self, encoder: Encoder, generation: GenerationSettings) -> list[GeneratedText]:
        """The prompts as they are, trailing space included, BOS before them where the tokenizer uses one."""
        prompts = []
        for index, row in enumerate(self.rows):
            ids = encoder.tokenizer(row["prompt"], add_special_tokens=False, verbose=False)["input_ids"]
            ids = special_prefix(encoder.tokenizer, row["prompt"]) + list(ids)
            guess = encoder.tokenizer(row["reference"], add_special_tokens=False, verbose=False)["input_ids"]
            key = result_key(self.split, index, "generation")
            prompts.append(GeneratedText(key, ids, replace(self.generation, stops=self.cuts), tuple(guess)))
        return prompts

    def table_row(
        self, index: int, scores: Mapping[str, Any], generations: Mapping[str, Any], encoder: Encoder
    ) -> dict[str, Any]:
        """Generation, reference as compared, ROUGE-L F1 and recall; statistics of the reference, if scored."""
        row = self.rows[index]
        generation = generations[result_key(self.split, index, "generation")]
        for cut in self.cuts:
            generation = generation.split(cut)[0]
        reference = row["reference"]
        if self.reference_tokens is not None:
            ids = special_prefix(encoder.tokenizer, reference) + list(
                encoder.tokenizer(reference, add_special_tokens=False)["input_ids"]
            )
            reference = str(encoder.tokenizer.decode(ids[: self.reference_tokens], skip_special_tokens=True))
        result = {"prompt": row["prompt"], "generation": generation, "reference_text": reference}
        measures: dict[str, Measure] = {"rouge_l_f1": "fmeasure", "rouge_l_recall": "recall"}
        for name, measure in measures.items():
            result[name] = rouge_scores([generation], [reference], "rougeL", measure, self.use_stemmer)[0]
        if self.scored:
            result |= _scored(scores[result_key(self.split, index, "reference")])
        return result


@dataclass(frozen=True)
class TextRequest(Request):
    """Raw texts that get membership scores.

    Attributes:
        rows: rows with `text`.
        drop_last_token: leave the last token of each text out of Min-K and Min-K++, as open-unlearning does.
        max_tokens: most tokens of a text beside BOS; `None` takes it whole, whatever the length of other sequences.
    """

    drop_last_token: bool = False
    max_tokens: int | None = None

    def texts(self, encoder: Encoder) -> list[ScoredText]:
        """Texts, cut only if `max_tokens` says so, every token after the first scored.

        Raises:
            ValueError: for a text without two tokens, naming split and row.
        """
        texts = []
        for index, row in enumerate(self.rows):
            prefix = special_prefix(encoder.tokenizer, row["text"])
            ids = encoder.tokenizer(row["text"], add_special_tokens=False, verbose=False)["input_ids"]
            ids = prefix + list(ids)[: self.max_tokens]
            if len(ids) < 2:
                raise ValueError(f"{self.split}, row {index}: the text has no token to predict; leave the row out.")
            labels = [IGNORE_INDEX, *ids[1:]]
            key = result_key(self.split, index, "text")
            texts.append(ScoredText(key, ids, labels, row["text"], details=True, ends=self.drop_last_token))
        return texts

    def table_row(
        self, index: int, scores: Mapping[str, Any], generations: Mapping[str, Any], encoder: Encoder
    ) -> dict[str, Any]:
        """Mean NLL, tokens and membership scores."""
        return _scored(scores[result_key(self.split, index, "text")])


def _scored(score: Mapping[str, Any], name: str = "answer") -> dict[str, Any]:
    """Mean NLL, tokens and, where the text has them, token-level statistics."""
    statistics = {each: value for each, value in score.items() if each not in ("nll", "tokens")}
    return {f"{name}_mean_nll": score["nll"] / score["tokens"], f"{name}_tokens": score["tokens"], **statistics}
