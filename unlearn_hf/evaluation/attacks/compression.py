"""The attack by loss over compressed length."""

from __future__ import annotations

import zlib

from unlearn_hf.evaluation.attacks.base import Attack, TokenScores


class Zlib(Attack):
    """Mean NLL over the bytes that zlib compresses the text to."""

    summary = "loss over compressed length"
    paper = "Carlini et al. 2021, arXiv 2012.07805"

    def score(self, tokens: TokenScores) -> float:
        """Nats per byte."""
        return tokens.mean_nll / len(zlib.compress(tokens.text.encode()))


ZLIB = Zlib()
