"""Make a language model forget chosen data and keep the rest.

Public names are loaded on first use, so that `import unlearn_hf` and the command line's help stay instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unlearn_hf.version import __version__ as __version__

_MODULES: dict[str, tuple[str, ...]] = {
    "unlearn_hf.training.callbacks": ("EvaluatorCallback",),
    "unlearn_hf.training.finetuning_config": ("FinetuningConfig",),
    "unlearn_hf.training.unlearning_config": ("UnlearningConfig",),
    "unlearn_hf.benchmarks.lume.data": ("load_lume",),
    "unlearn_hf.benchmarks.lume.evaluator": ("LumeEvaluator",),
    "unlearn_hf.benchmarks.muse.data": ("load_muse",),
    "unlearn_hf.benchmarks.tofu.data": ("load_tofu",),
    "unlearn_hf.data.own_files": ("load_pairs",),
    "unlearn_hf.benchmarks.muse.evaluator": ("MuseEvaluator",),
    "unlearn_hf.benchmarks.own_rows.evaluator": ("PairsEvaluator",),
    "unlearn_hf.benchmarks.tofu.evaluator": ("TofuEvaluator",),
    "unlearn_hf.evaluation.metrics.alone": ("load_metric",),
    "unlearn_hf.training.evaluators": ("Evaluator",),
    "unlearn_hf.training.finetuning": ("FinetuningTrainer",),
    "unlearn_hf.methods": (
        "METHODS",
        "EUPMUConfig",
        "EUPMUTrainer",
        "FAMOConfig",
        "FAMOTrainer",
        "GDRGMAConfig",
        "GDRGMATrainer",
        "GRUConfig",
        "GRUTrainer",
        "GUConfig",
        "GUTrainer",
        "GradDiffConfig",
        "GradDiffTrainer",
        "GradientSurgeryConfig",
        "GradientSurgeryTrainer",
        "HAMUConfig",
        "HAMUTrainer",
        "NGDiffConfig",
        "NGDiffTrainer",
        "NPOConfig",
        "NPOTrainer",
        "PDUConfig",
        "PDUTrainer",
        "SAGOConfig",
        "SAGOTrainer",
        "TaskVectorConfig",
        "TaskVectorTrainer",
    ),
    "unlearn_hf.objectives": ("FORGET_OBJECTIVES", "RETAIN_OBJECTIVES", "Needs", "Objective", "register_objective"),
    "unlearn_hf.training.unlearning": ("UnlearningTrainer",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted([*_HOMES, "__version__"])

if TYPE_CHECKING:
    from unlearn_hf.benchmarks.lume.data import load_lume as load_lume
    from unlearn_hf.benchmarks.lume.evaluator import LumeEvaluator as LumeEvaluator
    from unlearn_hf.benchmarks.muse.data import load_muse as load_muse
    from unlearn_hf.benchmarks.muse.evaluator import MuseEvaluator as MuseEvaluator
    from unlearn_hf.benchmarks.own_rows.evaluator import PairsEvaluator as PairsEvaluator
    from unlearn_hf.benchmarks.tofu.data import load_tofu as load_tofu
    from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator as TofuEvaluator
    from unlearn_hf.data.own_files import load_pairs as load_pairs
    from unlearn_hf.evaluation.metrics.alone import load_metric as load_metric
    from unlearn_hf.methods import METHODS as METHODS
    from unlearn_hf.methods import EUPMUConfig as EUPMUConfig
    from unlearn_hf.methods import EUPMUTrainer as EUPMUTrainer
    from unlearn_hf.methods import FAMOConfig as FAMOConfig
    from unlearn_hf.methods import FAMOTrainer as FAMOTrainer
    from unlearn_hf.methods import GDRGMAConfig as GDRGMAConfig
    from unlearn_hf.methods import GDRGMATrainer as GDRGMATrainer
    from unlearn_hf.methods import GradDiffConfig as GradDiffConfig
    from unlearn_hf.methods import GradDiffTrainer as GradDiffTrainer
    from unlearn_hf.methods import GradientSurgeryConfig as GradientSurgeryConfig
    from unlearn_hf.methods import GradientSurgeryTrainer as GradientSurgeryTrainer
    from unlearn_hf.methods import GRUConfig as GRUConfig
    from unlearn_hf.methods import GRUTrainer as GRUTrainer
    from unlearn_hf.methods import GUConfig as GUConfig
    from unlearn_hf.methods import GUTrainer as GUTrainer
    from unlearn_hf.methods import HAMUConfig as HAMUConfig
    from unlearn_hf.methods import HAMUTrainer as HAMUTrainer
    from unlearn_hf.methods import NGDiffConfig as NGDiffConfig
    from unlearn_hf.methods import NGDiffTrainer as NGDiffTrainer
    from unlearn_hf.methods import NPOConfig as NPOConfig
    from unlearn_hf.methods import NPOTrainer as NPOTrainer
    from unlearn_hf.methods import PDUConfig as PDUConfig
    from unlearn_hf.methods import PDUTrainer as PDUTrainer
    from unlearn_hf.methods import SAGOConfig as SAGOConfig
    from unlearn_hf.methods import SAGOTrainer as SAGOTrainer
    from unlearn_hf.methods import TaskVectorConfig as TaskVectorConfig
    from unlearn_hf.methods import TaskVectorTrainer as TaskVectorTrainer
    from unlearn_hf.objectives import FORGET_OBJECTIVES as FORGET_OBJECTIVES
    from unlearn_hf.objectives import RETAIN_OBJECTIVES as RETAIN_OBJECTIVES
    from unlearn_hf.objectives import Needs as Needs
    from unlearn_hf.objectives import Objective as Objective
    from unlearn_hf.objectives import register_objective as register_objective
    from unlearn_hf.training.callbacks import EvaluatorCallback as EvaluatorCallback
    from unlearn_hf.training.evaluators import Evaluator as Evaluator
    from unlearn_hf.training.finetuning import FinetuningTrainer as FinetuningTrainer
    from unlearn_hf.training.finetuning_config import FinetuningConfig as FinetuningConfig
    from unlearn_hf.training.unlearning import UnlearningTrainer as UnlearningTrainer
    from unlearn_hf.training.unlearning_config import UnlearningConfig as UnlearningConfig


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unlearn_hf' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
