"""Objectives: what is pushed on the forget set and held on the retain set."""

from unlearn_hf.objectives.base import Objective
from unlearn_hf.objectives.gradient_ascent import GRADIENT_ASCENT
from unlearn_hf.objectives.npo import NPO
from unlearn_hf.objectives.retain import KULLBACK_LEIBLER, NEGATIVE_LOG_LIKELIHOOD
from unlearn_hf.objectives.simnpo import SIMNPO

FORGET_OBJECTIVES: dict[str, Objective] = {objective.name: objective for objective in (GRADIENT_ASCENT, NPO, SIMNPO)}
RETAIN_OBJECTIVES: dict[str, Objective] = {
    objective.name: objective for objective in (NEGATIVE_LOG_LIKELIHOOD, KULLBACK_LEIBLER)
}

__all__ = ["FORGET_OBJECTIVES", "RETAIN_OBJECTIVES", "Objective"]
