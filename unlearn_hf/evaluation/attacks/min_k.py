"""Min-K and Min-K++: attacks by the least likely tokens."""

from __future__ import annotations

from unlearn_hf.evaluation.attacks.base import Attack, TokenScores

MIN_K_SHARE = 0.4
"""Share of the least likely tokens that Min-K looks at (MUSE; open-unlearning)."""


class MinK(Attack):
    """Minus the mean of the lowest 40 % of log-probabilities, at least one; none for a text without tokens."""

    summary = "the least likely 40 % of tokens"
    paper = "Shi et al. 2024, arXiv 2310.16789"
    values = "log"

    def score(self, tokens: TokenScores) -> float | None:
        """Minus the mean, nats for Min-K."""
        values = getattr(tokens, self.values)
        lowest = max(1, int(MIN_K_SHARE * len(values)))
        return -values.double().sort().values[:lowest].mean().item() if len(values) else None


class MinKPlusPlus(MinK):
    """The same of log-probabilities standardised over the vocabulary."""

    summary = "Min-K on standardised scores"
    paper = "Zhang et al. 2024, arXiv 2404.02936"
    values = "standardised"


MIN_K, MIN_K_PLUS_PLUS = MinK(), MinKPlusPlus()
