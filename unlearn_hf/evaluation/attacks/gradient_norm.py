"""The attack by gradient norm."""

from __future__ import annotations

from collections.abc import Mapping

from unlearn_hf.evaluation.attacks.base import Attack, AttackPass


class GradientNorm(Attack):
    """Mean norm of the loss gradient over parameter tensors."""

    summary = "gradient norm"
    paper = "Wang et al. 2024, arXiv 2402.17012"
    needs = "pass"
    cost = "forward and backward over each forget and holdout answer"

    def scores(self, run: AttackPass) -> Mapping[tuple[str, int], float]:
        """See `unlearn_hf.evaluation.attacks.extra_passes.gradient_norms`."""
        from unlearn_hf.evaluation.attacks.extra_passes import gradient_norms

        texts = {
            (request.split, index): text
            for request in run.requests
            for index, text in enumerate(request.texts(run.engine.encoder(run.tokenizer)))
        }
        found = gradient_norms(run.model, list(texts.values()), accelerator=run.accelerator, partial=run.partial)
        return {place: found[text.key] for place, text in texts.items() if text.key in found}


GRADIENT_NORM = GradientNorm()
