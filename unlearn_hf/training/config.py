"""Training configurations: `TrainingArguments` plus what unlearning needs."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from transformers import TrainingArguments
from transformers.utils import logging

from unlearn_hf.common.checks import MODEL_DTYPES, check_choice, check_device, check_positive
from unlearn_hf.data.alternatives import read_refusals
from unlearn_hf.evaluation.metrics.catalog import describe
from unlearn_hf.gradients.geometry import GEOMETRY_VIEWS
from unlearn_hf.likelihood.packed_rows import PACKING
from unlearn_hf.models.loading import check_attention, configured_width
from unlearn_hf.models.paths import is_adapter
from unlearn_hf.objectives import FORGET_OBJECTIVES, RETAIN_OBJECTIVES
from unlearn_hf.objectives.base import ALTERNATIVE, Needs, Objective
from unlearn_hf.objectives.registry import parameter_options
from unlearn_hf.training.automatic_learning_rate import (
    AutomaticLearningRateArguments,
    check_automatic_learning_rate,
)
from unlearn_hf.training.machine_checks import check_four_bit, check_precision, check_reporting
from unlearn_hf.training.row_defaults import in_words, row_defaults
from unlearn_hf.training.stop_condition import parse_condition

logger = logging.get_logger(__name__)

SAVE_STEPS = 0.2
LEVEL_ESTIMATES = ("probe", "ema", "batch")
TRAINABLE_DTYPES = ("float32", "bfloat16")


@dataclass
class FinetuningConfig(TrainingArguments):
    """Arguments of `FinetuningTrainer`, on top of transformers' `TrainingArguments`.

    Defaults that differ from `TrainingArguments`: `learning_rate` 1e-5, `weight_decay` 0.01, `logging_steps` 5,
    `logging_nan_inf_filter` False (a diverging run must show), `remove_unused_columns` False (batches are nested),
    `ddp_find_unused_parameters` False (every parameter is used), `save_steps` 0.2 (five checkpoints in a run, however
    short) and `save_total_limit` 1, `include_num_input_tokens_seen` stays off.
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate of the optimizer."})
    weight_decay: float = field(default=0.01, metadata={"help": "Decoupled weight decay of AdamW."})
    logging_steps: float = field(default=5, metadata={"help": "Optimizer steps between log lines (below 1: a share)."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Hide NaN losses in the log; off, because a diverging run must show."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off: batches are nested."})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Search unused parameters in every step; off, because all are used."}
    )
    save_steps: float = field(
        default=SAVE_STEPS,
        metadata={
            "help": "Optimizer steps between checkpoints (below 1: a share of the run), so that short runs can be "
            "resumed, too."
        },
    )
    save_total_limit: int | None = field(
        default=1,
        metadata={"help": "Checkpoints kept; an older one is deleted once the newer is whole. None: all of them."},
    )
    max_length: int = field(default=512, metadata={"help": "Tokens per sequence; longer ones lose their tail."})
    template: str = field(
        default="auto",
        metadata={"help": "Prompt template; `auto` takes the tokenizer's chat template when it has one."},
    )
    model_dtype: str = field(
        default="float32",
        metadata={
            "help": "Precision in which a model given by name is loaded. Trained parameters are raised to "
            "`trainable_dtype`, so this matters for the frozen part under an adapter.",
            "choices": list(MODEL_DTYPES),
        },
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={
            "help": "Hold the base model in 4 bit (NF4, by bitsandbytes) under the adapter that is trained; computes "
            "in `model_dtype`. `unlearn-hf merge` puts the adapter into the unquantised base."
        },
    )
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "Attention of a model given by name: sdpa, eager, flex_attention, or, where it is installed, "
            "flash_attention_2 (a GPU; with bf16). Default: transformers' choice."
        },
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that comes with a model given by name. Read it before."}
    )
    trainable_dtype: str = field(
        default="float32",
        metadata={
            "help": "Precision of the parameters that are trained. float32 holds master weights (use `bf16` or `fp16` "
            "for compute); bfloat16 rounds most updates at small learning rates to zero.",
            "choices": list(TRAINABLE_DTYPES),
        },
    )
    trainable_parameters: list[str] | None = field(
        default=None,
        metadata={
            "help": "Regular expressions on parameter names; only those that match one are trained, e.g. "
            r"`layers\.[5-7]\.mlp\.down_proj`. All by default."
        },
    )
    packing: str = field(
        default="auto",
        metadata={
            "help": "Compute batches without their padding, sequences end to end in one row, and under SDPA what all "
            "of them begin with only once. `auto`: where the "
            "attention costs no more for it (SDPA on the CPU, flash attention) and a trial on the first batch agrees.",
            "choices": list(PACKING),
        },
    )
    selective_checkpointing: bool = field(
        default=False,
        metadata={
            "help": "Keep what matrix products and attention give, and compute the rest of each layer (norms, "
            "activation functions) again in the backward pass: about half the activations for little time. "
            "`activation_checkpointing` computes all of it again."
        },
    )
    stop_on_divergence: bool = field(
        default=True,
        metadata={
            "help": "Stop before an update whose losses or gradients are not finite; off: go on without that update. "
            "Either way weights stay finite. Where one step may spoil them (learning_rate above 0.01, SGD without "
            "clipping, an optimizer of your own) a copy of the trained parameters rests on the CPU, and a run whose "
            "losses are not finite goes back to the last weights whose losses were."
        },
    )

    def __post_init__(self) -> None:
        """Check the fields, before anything is loaded.

        Raises:
            ValueError: for a field out of range, naming it.
        """
        self._check_numbers()
        self._check_fields_without_effect()
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
        check_positive("max_length", self.max_length)
        check_choice("model_dtype", self.model_dtype, MODEL_DTYPES)
        check_attention(self.attn_implementation)
        check_choice("trainable_dtype", self.trainable_dtype, TRAINABLE_DTYPES)
        check_choice("packing", self.packing, PACKING)
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


def with_objective_options(config_class: type) -> type:
    """A configuration class with an option for every parameter of every objective registered so far.

    Options that `config_class` has already stay as they are, so that nothing changes unless objectives were registered
    from outside.

    Raises:
        ValueError: when an objective's parameter has the name of an option of another kind.
    """
    present = {item.name: item for item in dataclasses.fields(config_class)}
    added: list[Any] = []
    for name, option in parameter_options().items():
        if name not in present:
            item = field(default=None, metadata={"help": option.help, "objectives": option.owners})
            added.append((name, option.type | None, item))
        elif "objectives" not in present[name].metadata:
            raise ValueError(
                f"objective {option.owners[0]!r}: its parameter {name!r} is an option of {config_class.__name__} "
                "already; name it otherwise."
            )
    if not added:
        return config_class

    about = {"__module__": config_class.__module__, "__doc__": config_class.__doc__, "__reduce_ex__": _reduce}
    return dataclasses.make_dataclass(config_class.__name__, added, bases=(config_class,), namespace=about)


def _reduce(config: Any, protocol: Any) -> Any:
    """Pickle by the class that is found under its name; options that were added to it are among the values."""
    named = next(each for each in type(config).__mro__ if "__reduce_ex__" not in vars(each))
    return object.__new__, (named,), vars(config)


@dataclass
class _NoOptions:
    """Parameters of the objectives."""


ObjectiveOptions: Any = with_objective_options(_NoOptions)


@dataclass
class UnlearningConfig(AutomaticLearningRateArguments, ObjectiveOptions, FinetuningConfig):
    """Arguments that every unlearning method shares."""

    can_stop: ClassVar[bool] = True
    """Whether the model can be judged after any step, and a run end there."""

    forget_loss: str = field(
        default="npo", metadata={"help": "Objective on the forget set.", "choices": FORGET_OBJECTIVES.keys()}
    )
    retain_loss: str = field(
        default="nll",
        metadata={
            "help": "Objective on the retain set. kl is zero before unlearning: for methods that weigh two gradients, "
            "a retain gradient shorter than 1e-5 of the forget gradient (1e-3 in half precision) is rounding noise "
            "and counts as zero, so the first steps follow the forget gradient alone. Under full fine-tuning kl "
            "holds a copy of the model.",
            "choices": RETAIN_OBJECTIVES.keys(),
        },
    )
    allow_overlap: bool = field(
        default=False, metadata={"help": "Train although rows of the forget set are in the retain set too."}
    )
    refusal_file: str | None = field(
        default=None,
        metadata={
            "help": "Text file with one refusal a line, for objectives that need another answer to the forget "
            "questions. Default: sentences that come along."
        },
    )
    alternative_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of the forget rows that has that other answer. Default: `alternative`, where rows have it."
        },
    )
    reference_cache: str | None = field(
        default=None,
        metadata={
            "help": "Folder for likelihoods of the model before unlearning; runs that share it compute them once. "
            "Default: `reference` in the output folder."
        },
    )
    reference_device: str | None = field(
        default=None,
        metadata={
            "help": "Where the frozen copy of the model rests and computes that objectives with distributions or "
            "hidden states of the model before unlearning need when no adapter is trained; `cpu` keeps it out of "
            "accelerator memory. Default: beside the model."
        },
    )
    reference_dtype: str | None = field(
        default=None,
        metadata={
            "help": "Precision of that copy: bfloat16 halves it, at rounding errors of the reference's distribution. "
            "Default: that of the model.",
            "choices": list(TRAINABLE_DTYPES),
        },
    )
    gradient_buffer_device: str | None = field(
        default=None,
        metadata={
            "help": "Where the gradients of the two objectives rest between backward passes, for methods that keep "
            "both: `cpu` frees one or two copies of accelerator memory. Default: where the gradients are."
        },
    )
    retain_budget: float | None = field(
        default=None,
        metadata={
            "help": "Stop when the retain loss has risen by more than this share of its value before unlearning "
            "(0.02: 2 %), and keep the last weights measured within it; a copy of the trained parameters rests on "
            "the CPU. Default: no budget."
        },
    )
    level_estimate: str = field(
        default="probe",
        metadata={
            "help": "What the rise of the retain loss is read from, for EUPMU's constraint `level` and "
            "`retain_budget`. probe: a fixed sample of retain rows, dropout off. batch: the rows of the step, after "
            "it, against the same rows before unlearning. ema: exponential moving averages of both. A budget is "
            "always decided by a probe, which batch and ema ask for as soon as they are above it.",
            "choices": list(LEVEL_ESTIMATES),
        },
    )
    level_probe_rows: int = field(default=64, metadata={"help": "Retain rows in the probe."})
    level_probe_interval: int = field(
        default=5,
        metadata={
            "help": "Optimizer steps between two probes; with `retain_budget` also after 1, 2, 4, ... steps at first."
        },
    )
    level_ema_decay: float = field(default=0.9, metadata={"help": "Decay per step of the moving averages."})
    log_gradient_geometry: str = field(
        default="none",
        metadata={
            "help": "total: log norms and cosine of the two gradients with every method (those that need them do so "
            "anyway). layers: also write them by layer and part to gradient_geometry.jsonl in the output folder. "
            "Both keep the two gradients apart, as gradient surgery does: one more copy of the gradients.",
            "choices": list(GEOMETRY_VIEWS),
        },
    )

    stop_when: str | None = field(
        default=None,
        metadata={
            "help": "Stop when this holds, such as 'forget_prob < 0.1 and retain_prob > 0.95 * initial' (names: "
            "forget_prob, retain_prob, step, epoch; initial: before unlearning). Where it never does, the weights "
            "with the best trade-off are kept; a copy of the trained parameters rests on the CPU."
        },
    )
    stop_on_path: bool = field(
        default=False,
        metadata={
            "help": "Once enough is forgotten, look at the nearest point to the weights before unlearning, on the "
            "straight line to those of now, at which that is still so: it keeps more. Needs stop_when; two more "
            "copies of the trained parameters rest on the CPU."
        },
    )
    stop_interval: int = field(default=5, metadata={"help": "Optimizer steps between two looks at that condition."})
    stop_rows: int = field(default=32, metadata={"help": "Rows of each set that it is measured on, at most."})
    verdict: bool | None = field(
        default=None,
        metadata={
            "help": "Measure a sample of rows before and after training (likelihoods, greedy and sampled answers), "
            "and say what was forgotten and kept. Default: where rows are texts."
        },
    )
    verdict_rows: int = field(
        default=32,
        metadata={"help": "Rows to forget that the verdict looks at, at most; of rows to keep twice as many."},
    )
    verdict_samples: int = field(default=5, metadata={"help": "Sampled answers to each of them."})
    held_back_rows: int = field(
        default=0,
        metadata={
            "help": "Retain rows that are not trained on, so that the verdict on what was kept is on unseen rows."
        },
    )

    @classmethod
    def for_rows(
        cls, model: Any, forget_dataset: Any, retain_dataset: Any, adapter: bool = False, **given: Any
    ) -> Self:
        """A configuration for rows of one's own: what is not given is chosen by their number, and told in a line.

        The command line chooses likewise for `--forget_file` and `--retain_file`. Data of a benchmark have recipes:
        give their values to the configuration itself.

        Args:
            model: what the trainer will get.
            forget_dataset: rows to forget.
            retain_dataset: rows to keep.
            adapter: whether the trainer will get a `peft_config`.
            **given: options, which win over what would be chosen.
        """
        chosen = row_defaults(
            len(forget_dataset),
            len(retain_dataset),
            adapter or is_adapter(model),
            configured_width(model, bool(given.get("trust_remote_code"))),
            given,
            cls.can_stop,
        )
        if chosen:
            logger.warning(in_words(chosen, len(forget_dataset)))
        return cls(**chosen, **given)

    def __post_init__(self) -> None:
        """Check the fields, before anything is loaded.

        Raises:
            ValueError: for an unknown objective or a parameter out of range or of no use.
        """
        check_choice("forget_loss", self.forget_loss, list(FORGET_OBJECTIVES))
        check_choice("retain_loss", self.retain_loss, list(RETAIN_OBJECTIVES))
        check_choice("level_estimate", self.level_estimate, list(LEVEL_ESTIMATES))
        for name in (
            "retain_budget",
            "level_probe_rows",
            "level_probe_interval",
            "verdict_rows",
            "verdict_samples",
            "stop_interval",
            "stop_rows",
        ):
            check_positive(name, getattr(self, name))
        if not 0 <= self.level_ema_decay < 1:
            raise ValueError(f"level_ema_decay: {self.level_ema_decay} is not in [0, 1); 0 is no averaging.")
        if self.stop_when is not None:
            parse_condition(self.stop_when)
        elif self.stop_on_path:
            raise ValueError("stop_on_path: it needs a condition for what is enough; give stop_when, or leave it out.")
        if self.held_back_rows < 0:
            raise ValueError(f"held_back_rows: {self.held_back_rows} is negative; give zero or more.")
        self._check_objectives()
        check_choice("log_gradient_geometry", self.log_gradient_geometry, GEOMETRY_VIEWS)
        if self.reference_dtype is not None:
            check_choice("reference_dtype", self.reference_dtype, TRAINABLE_DTYPES)
        for name in ("reference_device", "gradient_buffer_device"):
            check_device(name, getattr(self, name))
        for name in ("reference_device", "reference_dtype"):
            if not self.needs_reference_model and getattr(self, name) is not None:
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} has no meaning for forget_loss {self.forget_loss!r} and "
                    f"retain_loss {self.retain_loss!r}, which need no copy of the model; leave it out."
                )
        super().__post_init__()
        check_automatic_learning_rate(self)

    def _check_objectives(self) -> None:
        """Refuse parameters out of range, or of objectives that were not chosen, and levels that do not exist."""
        chosen = (self.forget_objective, self.retain_objective)
        pair = f"forget_loss {self.forget_loss!r} and retain_loss {self.retain_loss!r}"
        for name, option in parameter_options().items():
            value = getattr(self, name, None)
            if value is not None and not any(name in objective.parameter_names for objective in chosen):
                owners = " and ".join(dict.fromkeys(option.owners))
                raise ValueError(f"{name}: {value} has no meaning for {pair}; {owners} has it. Leave it out.")
        for objective in chosen:
            self.parameters_of(objective)  # which checks them
        for name in ("refusal_file", "alternative_column"):
            if getattr(self, name) is not None and ALTERNATIVE not in self.needs_of("forget").answers:
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} has no meaning for forget_loss {self.forget_loss!r}, which "
                    "needs no other answer; leave it out."
                )
        if self.refusal_file is not None:
            if self.alternative_column is not None:
                raise ValueError("refusal_file: it and alternative_column exclude each other; leave out one of them.")
            read_refusals(self.refusal_file)
        if self.retain_budget is not None and not self.retain_objective.is_nll and self.level_estimate != "probe":
            raise ValueError(
                f"level_estimate: {self.level_estimate!r} follows retain_loss {self.retain_loss!r}, whose value "
                "before unlearning is zero or not known, so that no share of it can be a budget; use level_estimate "
                "'probe', which measures the NLL."
            )

    @property
    def forget_objective(self) -> Objective:
        """What is minimised on the forget set."""
        return FORGET_OBJECTIVES[self.forget_loss]

    @property
    def retain_objective(self) -> Objective:
        """What is minimised on the retain set."""
        return RETAIN_OBJECTIVES[self.retain_loss]

    def parameters_of(self, objective: Objective) -> Any:
        """The parameters of an objective, with those that were set."""
        given = {name: getattr(self, name, None) for name in objective.parameter_names}
        return objective.parameters(**{name: value for name, value in given.items() if value is not None})

    def needs_of(self, side: Literal["forget", "retain"]) -> Needs:
        """What the objective of that side needs of each row."""
        objective = self.forget_objective if side == "forget" else self.retain_objective
        return objective.needs_with(self.parameters_of(objective))

    @property
    def needs_reference_model(self) -> bool:
        """Whether an objective needs distributions or hidden states of the model before unlearning in every step."""
        return any({"logits", "hidden"} & set(self.needs_of(side).reference) for side in ("forget", "retain"))
