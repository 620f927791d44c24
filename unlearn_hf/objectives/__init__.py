"""Objectives: what is pushed on the forget set and held on the retain set.

One file for each; from outside: `register_objective` (an objective of your own), and the two registries.
"""

from unlearn_hf.objectives.base import Needs, Objective
from unlearn_hf.objectives.registry import FORGET_OBJECTIVES, RETAIN_OBJECTIVES, register_objective

__all__ = ["FORGET_OBJECTIVES", "RETAIN_OBJECTIVES", "Needs", "Objective", "register_objective"]
