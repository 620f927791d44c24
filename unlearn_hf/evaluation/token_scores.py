"""The likelihood pass: everything that can be read off the token probabilities of a text, in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_hf.data.collator import collate
from unlearn_hf.data.labels import IGNORE_INDEX, label_positions
from unlearn_hf.evaluation.attacks.base import ATTACKS, TokenScores
from unlearn_hf.evaluation.metrics.memorization import ExactMemorization, ExtractionStrength
from unlearn_hf.likelihood.answers import answer_likelihood

_MEMORIZATION = {"extraction_strength": ExtractionStrength(), "exact_memorization": ExactMemorization()}
_SMALLEST_VARIANCE = 1e-6
_SMALLEST_LOG = -1e4


@dataclass(frozen=True)
class ScoredText:
    """A text to score.

    Attributes:
        key: unique name.
        input_ids: the tokens.
        labels: what is scored, -100 elsewhere.
        answer: the scored text, for the zlib attack.
        details: also compute token-level statistics (extraction, memorisation, membership scores).
        ends: whether the last token is an end-of-sequence token, which most of these statistics leave out.
    """

    key: str
    input_ids: list[int]
    labels: list[int]
    answer: str = ""
    details: bool = False
    ends: bool = True

    @property
    def scored(self) -> bool:
        """Whether a label is left."""
        return any(label != IGNORE_INDEX for label in self.labels)

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.input_ids)


def score_batch(model: nn.Module, texts: Sequence[ScoredText], pad_token_id: int, device: torch.device) -> list[Any]:
    """Score texts with one forward pass.

    Returns:
        For each text `nll` (sum, nats), `tokens`, and with `details` the values of `token_statistics`.
    """
    rows = [{"input_ids": text.input_ids, "labels": text.labels} for text in texts]
    batch = {name: value.to(device) for name, value in collate(rows, pad_token_id).items()}
    detailed = torch.tensor([text.details for text in texts], device=device)
    wanted = detailed[label_positions(batch["labels"])[0] // batch["labels"].shape[1]]

    def statistics(logits: Tensor, targets: Tensor, start: int) -> dict[str, Tensor]:
        chosen = wanted[start : start + len(logits)]
        found = per_token_statistics(logits[chosen], targets[chosen])
        empty = {name: torch.zeros(len(logits), dtype=value.dtype, device=device) for name, value in found.items()}
        return {name: empty[name].masked_scatter_(chosen, value) for name, value in found.items()}

    found = answer_likelihood(model, batch, token_function=statistics if any(text.details for text in texts) else None)
    return text_scores(
        texts,
        found.sequence_index,
        found.token_nll,
        lambda chosen: {name: value[chosen] for name, value in found.token_values.items()},
    )


def text_scores(
    texts: Sequence[ScoredText],
    index: Tensor,
    token_nll: Tensor,
    statistics_of: Callable[[Tensor], dict[str, Tensor]],
) -> list[dict[str, Any]]:
    """Scores of texts from their `N` labelled tokens.

    Args:
        texts: the texts.
        index: the text that each token belongs to, shape `[N]`, in order.
        token_nll: NLL of each token, shape `[N]`.
        statistics_of: gives the `per_token_statistics` of chosen tokens `[n]`; called for texts with details.

    Returns:
        See `score_batch`.
    """
    per_text = torch.zeros(len(texts), dtype=torch.float64).index_add(0, index.cpu(), token_nll.double().cpu())
    nll, tokens = per_text.tolist(), index.cpu().bincount(minlength=len(texts)).tolist()
    results: list[dict[str, Any]] = [{"nll": n, "tokens": t} for n, t in zip(nll, tokens, strict=True)]
    for number, text in enumerate(texts):
        if text.details:
            chosen = (index == number).nonzero().squeeze(-1)
            statistics = {name: value.cpu() for name, value in statistics_of(chosen).items()}
            results[number] |= token_statistics(statistics, nll[number], text.answer, text.ends)
    return results


def per_token_statistics(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Per token (`[n]`): log-probability, whether it is the most likely one, standardised log-probability.

    Args:
        logits: `[n, V]`, float32.
        targets: the tokens, `[n]`.
    """
    # Bounded, so that a token of probability 0 (a model may exclude some) does not make mean and variance NaN.
    log_probabilities = torch.log_softmax(logits, dim=-1)
    log = log_probabilities.gather(-1, targets[:, None]).squeeze(-1)
    log_probabilities = log_probabilities.clamp_(min=_SMALLEST_LOG)
    probabilities = log_probabilities.exp()
    mean = (probabilities * log_probabilities).sum(-1)
    variance = (probabilities * (log_probabilities - mean[:, None]).square()).sum(-1)
    standardised = (log - mean) / variance.clamp(min=_SMALLEST_VARIANCE).sqrt()
    return {"log": log, "standardised": standardised, "match": logits.argmax(-1) == targets}


def token_statistics(per_token: dict[str, Tensor], nll: float, answer: str, ends: bool = True) -> dict[str, float]:
    """Scores of one text from its labelled tokens, the last of which is the end of sequence if it `ends`.

    Extraction strength, exact memorisation, Min-K and Min-K++ leave the end of sequence out; it is the only token of
    an empty answer, which has none of these four.

    Returns:
        * `extraction_strength`: `1 - k/n`, k the first index from which on every token is the most likely one; 0 when
          not even the last is (Carlini et al. 2021; open-unlearning gives 1/n there).
        * `exact_memorization`: share of tokens that are the most likely one.
        * the score of every attack of the registry that needs no more than this.
    """
    count = len(per_token["log"])
    mean_nll = nll / count
    count -= ends
    log, standardised, match = (per_token[name][:count] for name in ("log", "standardised", "match"))
    tokens = TokenScores(log, standardised, match, mean_nll, answer)
    attacks = {name: attack.score(tokens) for name, attack in ATTACKS.items() if attack.needs == "tokens"}
    scores = {name: score for name, score in attacks.items() if score is not None}
    if count == 0:
        return scores
    matches = match.numpy()
    return scores | {name: metric.of_matches(matches) for name, metric in _MEMORIZATION.items()}
