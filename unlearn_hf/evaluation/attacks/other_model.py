"""The attack against another model, which the literature calls the reference model."""

from __future__ import annotations

from collections.abc import Mapping

from unlearn_hf.evaluation.attacks.base import Attack, AttackPass


class Reference(Attack):
    """Mean NLL minus that of another model, which knows the language but not these texts."""

    summary = "loss minus another model's loss"
    paper = "Carlini et al. 2022, arXiv 2112.03570"
    needs = "model"
    cost = "one forward pass of the other model over each forget and holdout answer, once per evaluator"

    def scores(self, run: AttackPass) -> Mapping[tuple[str, int], float]:
        """Nats per token. The other model runs once per evaluator, whose memory keeps its losses."""
        from unlearn_hf.evaluation.attacks.extra_passes import model_losses

        assert run.attack_model is not None
        if "reference" not in run.memory:
            run.memory["reference"] = model_losses(
                run.attack_model, run.engine, run.tokenizer, run.requests, run.accelerator
            )
        theirs = run.memory["reference"]
        return {place: loss - theirs[place] for place, loss in run.mean_nll.items() if place in theirs}


REFERENCE = Reference()
