"""The attack against another model, which the literature calls the reference model."""

from __future__ import annotations

from collections.abc import Mapping

from unlearn_hf.evaluation.attacks.base import Attack, AttackPass


class Reference(Attack):
    """Mean NLL minus that of another model, which knows the language but not these texts."""

    summary = "loss minus another model's loss"
    paper = "Carlini et al. 2022, arXiv 2112.03570"
    needs = "model"
    cost = "one forward pass over each forget and holdout answer, and one of the other model, once per evaluator"

    def scores(self, run: AttackPass) -> Mapping[tuple[str, int], float]:
        """Nats per token. The other model runs once per evaluator, whose memory keeps its losses.

        Both models have the same pass over the same batches in the same precision, so that rounding is no difference:
        a model against itself has ties alone.
        """
        from unlearn_hf.evaluation.attacks.extra_passes import model_losses, other_model
        from unlearn_hf.models.fingerprint import model_fingerprint

        assert run.attack_model is not None
        common = (run.engine, run.tokenizer, run.requests, run.accelerator)
        if "reference" not in run.memory:
            other = other_model(run.attack_model, run.model)
            name = run.attack_model if isinstance(run.attack_model, str) else getattr(other, "name_or_path", "")
            run.memory["attack_model"] = {"name": name or None, "fingerprint": model_fingerprint(other)}
            run.memory["reference"] = model_losses(other, *common)
        theirs = run.memory["reference"]
        return {place: loss - theirs[place] for place, loss in model_losses(run.model, *common).items()}


REFERENCE = Reference()
