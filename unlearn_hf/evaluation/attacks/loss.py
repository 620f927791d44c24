"""The attack by loss."""

from __future__ import annotations

from unlearn_hf.evaluation.attacks.base import Attack, TokenScores


class Loss(Attack):
    """Mean NLL of the text, its end included."""

    summary = "mean loss"
    paper = "Yeom et al. 2018, arXiv 1709.01604"

    def score(self, tokens: TokenScores) -> float:
        """Mean NLL, nats."""
        return tokens.mean_nll


LOSS = Loss()
