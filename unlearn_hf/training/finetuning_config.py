"""Configuration of fine-tuning: `TrainingArguments` plus what exact answer likelihoods need and rule out."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainingArguments

from unlearn_hf.common.checks import MODEL_DTYPES, TRAINABLE_DTYPES, check_positive
from unlearn_hf.common.options import check_options, option
from unlearn_hf.evaluation.metrics.catalog import describe
from unlearn_hf.likelihood.packed_rows import PACKING
from unlearn_hf.models.loading import check_attention
from unlearn_hf.training.machine_checks import check_four_bit, check_precision, check_reporting

SAVE_STEPS = 0.2


@dataclass
class FinetuningConfig(TrainingArguments):
    """Arguments of `FinetuningTrainer`, on top of transformers' `TrainingArguments`.

    Defaults that differ from `TrainingArguments`: `learning_rate` 1e-5, `weight_decay` 0.01, `logging_steps` 5,
    `logging_nan_inf_filter` False (a diverging run must show), `remove_unused_columns` False (batches are nested),
    `ddp_find_unused_parameters` False (every parameter is used), `save_steps` 0.2 (five checkpoints in a run, however
    short) and `save_total_limit` 1, `include_num_input_tokens_seen` stays off.
    """

    learning_rate: float = option(1e-5, "Peak learning rate of the optimizer.")
    weight_decay: float = option(0.01, "Decoupled weight decay of AdamW.")
    logging_steps: float = option(5, "Optimizer steps between log lines (below 1: a share).")
    logging_nan_inf_filter: bool = option(False, "Hide NaN losses in the log; off, because a diverging run must show.")
    remove_unused_columns: bool = option(False, "Must stay off: batches are nested.")
    ddp_find_unused_parameters: bool | None = option(
        False, "Search unused parameters in every step; off, because all are used."
    )
    save_steps: float = option(
        SAVE_STEPS,
        "Optimizer steps between checkpoints (below 1: a share of the run), so that short runs can be resumed, too.",
    )
    save_total_limit: int | None = option(
        1, "Checkpoints kept; an older one is deleted once the newer is whole. None: all of them."
    )
    max_length: int = option(512, "Tokens per sequence; longer ones lose their tail.", only="positive")
    template: str = option("auto", "Prompt template; `auto` takes the tokenizer's chat template when it has one.")
    model_dtype: str = option(
        "float32",
        "Precision in which a model given by name is loaded. Trained parameters are raised to `trainable_dtype`, so "
        "this matters for the frozen part under an adapter.",
        choices=MODEL_DTYPES,
    )
    load_in_4bit: bool = option(
        False,
        "Hold the base model in 4 bit (NF4, by bitsandbytes) under the adapter that is trained; computes in "
        "`model_dtype`. `unlearn-hf merge` puts the adapter into the unquantised base.",
    )
    attn_implementation: str | None = option(
        None,
        "Attention of a model given by name: sdpa, eager, flex_attention, or, where it is installed, "
        "flash_attention_2 (a GPU; with bf16). Default: transformers' choice.",
    )
    trust_remote_code: bool = option(False, "Run code that comes with a model given by name. Read it before.")
    trainable_dtype: str = option(
        "float32",
        "Precision of the parameters that are trained. float32 holds master weights (use `bf16` or `fp16` for "
        "compute); bfloat16 rounds most updates at small learning rates to zero.",
        choices=TRAINABLE_DTYPES,
    )
    trainable_parameters: list[str] | None = option(
        None,
        "Regular expressions on parameter names; only those that match one are trained, e.g. "
        r"`layers\.[5-7]\.mlp\.down_proj`. All by default.",
    )
    packing: str = option(
        "auto",
        "Compute batches without their padding, sequences end to end in one row, and under SDPA what all of them "
        "begin with only once. `auto`: where the attention costs no more for it (SDPA on the CPU, flash attention) "
        "and a trial on the first batch agrees.",
        choices=PACKING,
    )
    selective_checkpointing: bool = option(
        False,
        "Keep what matrix products and attention give, and compute the rest of each layer (norms, activation "
        "functions) again in the backward pass: about half the activations for little time. "
        "`activation_checkpointing` computes all of it again.",
    )
    stop_on_divergence: bool = option(
        True,
        "Stop before an update whose losses or gradients are not finite; off: go on without that update. Either way "
        "weights stay finite. Where one step may spoil them (learning_rate above 0.01, SGD without clipping, an "
        "optimizer of your own) a copy of the trained parameters rests on the CPU, and a run whose losses are not "
        "finite goes back to the last weights whose losses were.",
    )

    @property
    def trains(self) -> bool:
        """Whether there is a step to make."""
        return True

    def __post_init__(self) -> None:
        """Check the fields, before anything is loaded.

        Raises:
            ValueError: for a field out of range, naming it.
        """
        self._check_numbers()
        self._check_fields_without_effect()
        check_options(self)
        check_precision(self.bf16, self.fp16, self.use_cpu)
        check_reporting(self.report_to)
        best = self.metric_for_best_model
        if self.greater_is_better is None and best is not None:
            # transformers takes every name that does not end in `loss` for a score; ours have a direction.
            with contextlib.suppress(ValueError):
                self.greater_is_better = describe(best.removeprefix("eval_")).higher_is_better
        if self.load_best_model_at_end and self.eval_strategy == "steps" and self.save_steps == SAVE_STEPS:
            # The best one can only be loaded where every evaluation has its checkpoint.
            self.save_steps = self.eval_steps or self.logging_steps
        super().__post_init__()
        if self.use_cpu or not torch.cuda.is_available():
            self.dataloader_pin_memory = False  # without a GPU it does nothing but warn
        if self.load_in_4bit:
            check_four_bit()
            if self.fsdp or self.deepspeed:
                raise ValueError(
                    "load_in_4bit: True is not supported with fsdp or deepspeed, which shard what was not quantised; "
                    "use one process or DDP."
                )
        check_attention(self.attn_implementation)
        if self.selective_checkpointing and (self.activation_checkpointing or self.gradient_checkpointing):
            raise ValueError(
                "selective_checkpointing: True cannot go with activation_checkpointing, which computes everything "
                "again; choose one."
            )
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns: True would drop the nested batches; leave it False.")
        if self.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor: {self.label_smoothing_factor} is not supported; answer likelihoods are "
                "exact. Set it to 0."
            )

    def _check_fields_without_effect(self) -> None:
        """Refuse options of transformers' Trainer that batches of two sets, or exact token likelihoods, rule out."""
        plain: dict[str, tuple[Any, str]] = {
            "train_sampling_strategy": ("random", "forget and retain rows are paired at random"),
            "length_column_name": ("length", "rows are not grouped by length"),
            "label_names": (None, "labels are those of the answers"),
            "include_for_metrics": ([], "evaluators judge the model; there is no compute_metrics"),
            "batch_eval_metrics": (False, "evaluators judge the model; there is no compute_metrics"),
            "use_liger_kernel": (False, "its fused loss would take the place of the answers' likelihoods"),
            "liger_kernel_config": (None, "Liger kernels are not used"),
            "auto_find_batch_size": (False, "it would start again with a model that has been trained on"),
            "optim_target_modules": (None, "name what is trained by trainable_parameters"),
        }
        for name, (only, reason) in plain.items():
            if getattr(self, name) != only:
                raise ValueError(f"{name}: {getattr(self, name)!r} has no place here, {reason}; leave it at {only!r}.")
        if self.neftune_noise_alpha is not None and self.packing == "true":
            raise ValueError(
                f"packing: 'true' cannot go with neftune_noise_alpha {self.neftune_noise_alpha}, whose noise "
                "depends on the length of the row; use packing 'auto' or 'false'."
            )
        if self.adam_epsilon <= 0:
            raise ValueError(
                f"adam_epsilon: {self.adam_epsilon} divides zero by zero where a gradient is zero; give 1e-8."
            )

    def _check_numbers(self) -> None:
        """Refuse what transformers would notice late, or not at all."""
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: {self.learning_rate} trains nothing; give a number above zero.")
        # What torch's optimizers compute on the way: rate times decay, and Adam's rate over its first bias correction.
        largest = torch.finfo(torch.float32).max * (1 - self.adam_beta1 if "adam" in str(self.optim) else 1)
        if self.learning_rate * max(1.0, self.weight_decay) > largest:
            raise ValueError(
                f"learning_rate: {self.learning_rate:g} (weight_decay {self.weight_decay:g}) is beyond what float32 "
                "holds; give a smaller number, 1e-5 say."
            )
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            check_positive(name, getattr(self, name))
        if self.max_steps <= 0:  # -1: not given
            check_positive("num_train_epochs", self.num_train_epochs)
        if self.max_steps == 0:
            raise ValueError("max_steps: 0 trains nothing; give a positive number, or -1 for whole epochs.")
        for name in ("seed", "dataloader_num_workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is negative; give zero or more.")
