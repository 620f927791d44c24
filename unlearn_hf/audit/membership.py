"""Membership: whether forget rows still look learnt beside rows that no model has seen."""

from __future__ import annotations

import math
from dataclasses import replace

from unlearn_hf.audit.base import AuditAttack, AuditPass, Findings, Sizes, Work
from unlearn_hf.evaluation.attacks.base import ATTACKS, AttackPass, add_scores


def recognised(forget: list[float | None], holdout: list[float | None]) -> list[float | None]:
    """For each forget row, the share of holdout rows that look less like members, ties half; the mean is the AUC."""
    import numpy as np

    others = np.array([score for score in holdout if score is not None and not math.isnan(score)])
    return [
        None
        if score is None or math.isnan(score) or not others.size
        else float((others > score).mean() + (others == score).mean() / 2)
        for score in forget
    ]


class Membership(AuditAttack):
    """Every membership attack of the registry; the one against another model where the retain-only model is given."""

    summary = "all membership attacks, forget rows against holdout rows (the mean is the AUC; 0.5: cannot tell)"
    paper = "Shi et al. 2024, arXiv 2310.16789, and those of each attack"
    needs_holdout = True
    shown = ("min_k_auc", "loss_auc", "reference_auc")

    def work(self, sizes: Sizes) -> Work:
        """All rows, once for the likelihoods, and once for each attack with a pass of its own."""
        return Work((1 + sum(each.needs != "tokens" for each in ATTACKS.values())) * (sizes.forget + sizes.holdout))

    def findings(self, run: AuditPass, variant: str) -> Findings:
        """Score both sets, and compare."""
        from unlearn_hf.evaluation.requests import SplitRequest

        requests = [
            SplitRequest("forget", run.forget, details=True, generated=False),
            SplitRequest("holdout", run.holdout, details=True, generated=False),
        ]
        table = run.run(run.model, requests)
        engine = replace(run.engine, seconds={})
        attack_pass = AttackPass(run.model, run.tokenizer, requests, engine, {}, run.retain_model, run.accelerator)
        names = [name for name, each in ATTACKS.items() if each.needs != "model" or run.retain_model is not None]
        add_scores(table, [name for name in names if ATTACKS[name].needs != "tokens"], attack_pass)
        forget, holdout = (table[table["split"] == request.split] for request in requests)
        values = {f"{name}_auc": recognised(forget[name].tolist(), holdout[name].tolist()) for name in names}
        return Findings(list(range(len(run.forget))), values)


MEMBERSHIP = Membership()
