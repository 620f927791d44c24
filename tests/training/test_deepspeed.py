"""Methods with one backward pass under DeepSpeed, where it is installed: the parameters of a run without it.

This file is also the program of the launched process, because DeepSpeed reads the environment once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_runs import build_trainer, largest_difference, parameters

ONE_BACKWARD = ("graddiff", "graddiff-kl", "npo", "eupmu", "eupmu-level-ema", "eupmu-level-probe", "npo-budget", "pdu")
ADAM = {"optim": "adamw_torch", "learning_rate": 1e-3}


def train_with_deepspeed(stage: int, folder: Path) -> None:
    """Two micro-batches a step; saves every case's model."""
    zero = {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True}
    batches = {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2, "train_batch_size": 4}
    deepspeed = {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": "auto",
        **batches,
    }
    micro = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    for case in ONE_BACKWARD:
        trainer = build_trainer(case, folder / case, deepspeed=deepspeed, use_cpu=False, **micro, **ADAM)
        assert trainer.is_deepspeed_enabled
        trainer.train()
        trainer.save_model(str(folder / case / "model"))


@pytest.mark.parametrize("stage", [2, 3])
def test_the_same_parameters_as_without(stage: int, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    from transformers import AutoModelForCausalLM

    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1"]
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"ACCELERATE_USE_DEEPSPEED": "true", "PYTHONPATH": path}
    command = [*launch, __file__, str(stage), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for case in ONE_BACKWARD:
        trainer = build_trainer(case, tmp_path / "without" / case, **ADAM)
        trainer.train()
        found = AutoModelForCausalLM.from_pretrained(tmp_path / case / "model")
        assert largest_difference(parameters(trainer.model), parameters(found)) < 1e-5, case


if __name__ == "__main__":
    train_with_deepspeed(int(sys.argv[1]), Path(sys.argv[2]))
