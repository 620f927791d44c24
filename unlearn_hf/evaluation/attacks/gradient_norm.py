"""The attack by gradient norm."""

from __future__ import annotations

from collections.abc import Mapping

from unlearn_hf.evaluation.attacks.base import Attack, AttackPass


class GradientNorm(Attack):
    """Mean norm of the loss gradient over parameter tensors.

    The loss is that of the answer with its end of text, as it is trained; open-unlearning leaves the end out.
    """

    summary = "gradient norm"
    paper = "Wang et al. 2024, arXiv 2402.17012"
    needs = "pass"
    cost = "forward and backward over each forget and holdout answer"

    def definition(self, compatibility: str | None) -> str:
        """Whether the end of text counts."""
        return "holdout_above_forget_without_end" if compatibility else super().definition(compatibility)

    def scores(self, run: AttackPass) -> Mapping[tuple[str, int], float]:
        """See `gradient_norms`; an empty answer has no score without its end of text."""
        from unlearn_hf.evaluation.attacks.extra_passes import gradient_norms, without_end

        texts = {
            (request.split, index): without_end(text) if run.compatibility else text
            for request in run.requests
            for index, text in enumerate(request.texts(run.engine.encoder(run.tokenizer)))
        }
        texts = {place: text for place, text in texts.items() if text.scored}
        found = gradient_norms(run.model, list(texts.values()), accelerator=run.accelerator, partial=run.partial)
        return {place: found[text.key] for place, text in texts.items() if text.key in found}


GRADIENT_NORM = GradientNorm()
