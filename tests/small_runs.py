"""Small training runs that every method goes through."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn

from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.methods import METHODS
from unlearn_hf.training.unlearning import UnlearningTrainer

RETAIN_SEED = 2
# Every method, and every option that changes its control flow. A new method belongs here once.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "graddiff": ("graddiff", {}),
    "graddiff-kl": ("graddiff", {"retain_loss": "kl", "forget_weight": 0.5}),
    "npo": ("npo", {}),
    "simnpo": ("npo", {"forget_loss": "simnpo"}),
    "ngdiff": ("ngdiff", {}),
    "ngdiff-autolr": ("ngdiff", {"autolr": True, "autolr_interval": 2}),
    "npo-autolr": ("npo", {"autolr": True, "autolr_interval": 2}),
    "eupmu-autolr": ("eupmu", {"autolr": True, "autolr_interval": 2, "initial_dual": 0.5, "dual_optimizer": "sgd"}),
    "eupmu-level-fast-autolr": (
        "eupmu",
        {"constraint": "level", "level_estimate": "batch", "reevaluate": False, "autolr": True, "autolr_interval": 2},
    ),
    "eupmu": ("eupmu", {"initial_dual": 0.0}),
    "eupmu-level-probe": (
        "eupmu",
        {"constraint": "level", "epsilon": 0.02, "level_probe_rows": 7, "level_probe_interval": 2},
    ),
    "eupmu-level-ema": ("eupmu", {"constraint": "level", "level_estimate": "ema", "dual_optimizer": "sgd"}),
    "eupmu-level-fast": (
        "eupmu",
        {"constraint": "level", "level_estimate": "batch", "reevaluate": False, "initial_dual": 0.5},
    ),
    "npo-budget": ("npo", {"retain_budget": 100.0, "level_estimate": "ema"}),
    "ngdiff-budget": ("ngdiff", {"retain_budget": 100.0, "level_probe_rows": 5, "level_probe_interval": 2}),
    "eupmu-step-fast": ("eupmu", {"constraint": "step", "reevaluate": False}),
    "eupmu-log": ("eupmu", {"constraint": "step", "scalarization": "log", "initial_dual": 0.5}),
    "eupmu-normalized-sgd": (
        "eupmu",
        {
            "constraint": "step",
            "scalarization": "normalized",
            "dual_optimizer": "sgd",
            "dual_signal": "raw",
            "per_learning_rate": True,
        },
    ),
    "surgery": ("gradient_surgery", {}),
    "surgery-pcgrad": ("gradient_surgery", {"rule": "pcgrad"}),
    "surgery-one-sided": (
        "gradient_surgery",
        {"rule": "one_sided_pcgrad", "forget_weight": 0.5, "retain_weight": 2.0},
    ),
    "surgery-cagrad": ("gradient_surgery", {"rule": "cagrad"}),
    "gru": ("gru", {"forget_loss": "ga"}),
    "gru-npo-cpu": ("gru", {"retain_momentum": 0.8, "gradient_buffer_device": "cpu"}),
    "gdr-gma": ("gdr_gma", {"magnitude_slope": 5.0}),
    "gdr-gma-level": ("gdr_gma", {"largest_retain_loss": 6.0, "forget_loss": "npo", "retain_loss": "nll"}),
    "pdu": ("pdu", {"initial_dual": 0.0, "forget_loss": "npo"}),
    "pdu-level": ("pdu", {"largest_retain_loss": 5.0, "dual_learning_rate": 0.1, "dual_warmup_epochs": 1}),
    "pdu-kl": ("pdu", {"retain_loss": "kl"}),
    "famo": ("famo", {}),
    # every objective once, with methods of every kind
    "dpo": ("graddiff", {"forget_loss": "dpo"}),
    "eupmu-dpo-kl": ("eupmu", {"forget_loss": "dpo", "retain_loss": "kl", "dual_signal": "raw"}),
    "eupmu-log-idk": (
        "eupmu",
        {"forget_loss": "idk", "constraint": "step", "scalarization": "log", "initial_dual": 0.5},
    ),
    "surgery-idk": ("gradient_surgery", {"forget_loss": "idk"}),
    "rmu": ("graddiff", {"forget_loss": "rmu", "layer": 0, "retain_weight": 0.5}),
    "rmu-hidden": ("graddiff", {"forget_loss": "rmu", "retain_loss": "hidden", "layer": 1}),
    "gru-rmu-adaptive": ("gru", {"forget_loss": "rmu", "layer": 0, "adaptive_steering": True}),
    "pdu-rmu-hidden": ("pdu", {"forget_loss": "rmu", "retain_loss": "hidden", "layer": 0}),
    "ngdiff-undial": ("ngdiff", {"forget_loss": "undial"}),
    "eupmu-undial-kl": ("eupmu", {"forget_loss": "undial", "retain_loss": "kl", "dual_signal": "raw"}),
    "famo-ceu": ("famo", {"forget_loss": "ceu"}),
    "eupmu-wga": ("eupmu", {"forget_loss": "wga"}),
    "gdr-gma-satimp": ("gdr_gma", {"forget_loss": "satimp", "saturation": 1.0}),
    "pdu-margin": ("pdu", {"retain_tolerance": 0.1}),
    "surgery-uniform": ("gradient_surgery", {"forget_loss": "kl_uniform", "rule": "pcgrad"}),
    "gu": ("gu", {"forget_loss": "ga", "retain_weight": 0.5}),
    # Adam's first step is a sign unless its epsilon is large: rounding would decide it
    "gu-adam": ("gu", {"optim": "adamw_torch", "adam_epsilon": 0.1, "metric_epsilon": 0.05}),
    "task-vector": ("task_vector", {}),
    "whp": ("whp", {"alpha": 1.5}),
    "sago": ("sago", {"forget_loss": "ga", "retain_weight": 2.0}),
    "sago-prefer-retain-cpu": (
        "sago",
        {"form": "prefer_retain", "forget_weight": 0.5, "gradient_buffer_device": "cpu"},
    ),
    "hamu": ("hamu", {"progress": 0.5}),
    "hamu-u": ("hamu", {"variant": "U", "forget_loss": "ga", "radius": 0.5, "progress": -0.1}),
    "famo-simnpo": ("famo", {"forget_loss": "simnpo", "beta": 0.2, "logit_learning_rate": 0.5}),
}
WITH_ADAPTERS = [case for case, (method, _) in CASES.items() if method != "whp"]  # which refuses them


@functools.cache  # never written to, and half of what building a trainer takes
def rows(count: int, seed: int) -> Dataset:
    """Random rows of ragged lengths, with ragged prompts."""
    generator = random.Random(seed)
    lengths = [generator.randint(5, 14) for _ in range(count)]
    prompts = [generator.randint(1, length - 3) for length in lengths]
    ids = [[generator.randint(6, 300) for _ in range(length)] for length in lengths]
    labels = [[-100] * prompt + row[prompt:] for row, prompt in zip(ids, prompts, strict=True)]
    return Dataset.from_dict({"input_ids": ids, "labels": labels})


@functools.cache
def forget_rows(count: int, seed: int) -> Dataset:
    """Such rows with alternative answers."""
    found, others = rows(count, seed), rows(count, seed + 100)
    for name in ("input_ids", "labels"):
        found = found.add_column(f"alternative_{name}", others[name][:])
    return found


def build_trainer(
    case: str,
    folder: Path,
    model: nn.Module | None = None,
    forget: int = 12,
    retain: int = 20,
    forget_seed: int = 1,
    peft_config: Any = None,
    callbacks: list[Any] | None = None,
    **overrides: Any,
) -> UnlearningTrainer:
    """A trainer for `case` on random rows: three steps of four rows, plain SGD."""
    method, options = CASES[case]
    trainer_class = METHODS[method]
    arguments: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "max_steps": 3,
        "learning_rate": 0.05,
        "weight_decay": 0.0,
        "optim": "sgd",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "save_total_limit": None,
        "disable_tqdm": True,
        "use_cpu": True,
        "allow_overlap": forget_seed == RETAIN_SEED,
    }
    return trainer_class(
        model=model if model is not None else build_model(),
        args=trainer_class.config_class(**{**arguments, **options, **overrides}),
        forget_dataset=forget_rows(forget, forget_seed),
        retain_dataset=rows(retain, RETAIN_SEED),
        processing_class=build_tokenizer(),
        peft_config=peft_config,
        callbacks=callbacks,
    )


def parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def trained_part(model: nn.Module) -> nn.Module:
    """What training has moved: `whp` puts the model before beside it."""
    return getattr(model, "reinforced", model)


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest absolute difference between two sets of parameters."""
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)
