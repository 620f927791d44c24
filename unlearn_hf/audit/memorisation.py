"""The model as it is: what the other attacks are compared with."""

from __future__ import annotations

from unlearn_hf.audit.base import AuditAttack, AuditPass, Findings


class Memorisation(AuditAttack):
    """Probability, extraction strength, exact memorisation and ROUGE of the answers, without any change."""

    summary = "no attack: probability, extraction strength, exact memorisation and ROUGE of the answers"
    paper = "Carlini et al. 2021, arXiv 2012.07805; Tirumala et al. 2022, arXiv 2205.10770"

    def findings(self, run: AuditPass, variant: str) -> Findings:
        """Measure all forget rows."""
        return run.measured(run.model, run.forget)


MEMORISATION = Memorisation()
