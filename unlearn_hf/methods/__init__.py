"""Unlearning methods: how forgetting and retaining are reconciled in one update."""

from unlearn_hf.methods.eupmu import EUPMUConfig, EUPMUTrainer
from unlearn_hf.methods.famo import FAMOConfig, FAMOTrainer
from unlearn_hf.methods.gdr_gma import GDRGMAConfig, GDRGMATrainer
from unlearn_hf.methods.graddiff import GradDiffConfig, GradDiffTrainer
from unlearn_hf.methods.gradient_surgery import GradientSurgeryConfig, GradientSurgeryTrainer
from unlearn_hf.methods.gru import GRUConfig, GRUTrainer
from unlearn_hf.methods.gu import GUConfig, GUTrainer
from unlearn_hf.methods.hamu import HAMUConfig, HAMUTrainer
from unlearn_hf.methods.ngdiff import NGDiffConfig, NGDiffTrainer
from unlearn_hf.methods.npo import NPOConfig, NPOTrainer
from unlearn_hf.methods.pdu import PDUConfig, PDUTrainer
from unlearn_hf.methods.sago import SAGOConfig, SAGOTrainer
from unlearn_hf.methods.task_vector import TaskVectorConfig, TaskVectorTrainer
from unlearn_hf.methods.whp import WHPConfig, WHPTrainer
from unlearn_hf.training.unlearning import UnlearningTrainer

METHODS: dict[str, type[UnlearningTrainer]] = {
    "graddiff": GradDiffTrainer,
    "npo": NPOTrainer,
    "ngdiff": NGDiffTrainer,
    "eupmu": EUPMUTrainer,
    "gradient_surgery": GradientSurgeryTrainer,
    "gru": GRUTrainer,
    "gdr_gma": GDRGMATrainer,
    "pdu": PDUTrainer,
    "famo": FAMOTrainer,
    "hamu": HAMUTrainer,
    "sago": SAGOTrainer,
    "gu": GUTrainer,
    "task_vector": TaskVectorTrainer,
    "whp": WHPTrainer,
}

__all__ = [
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
    "WHPConfig",
    "WHPTrainer",
]
