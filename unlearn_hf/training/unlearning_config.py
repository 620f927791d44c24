"""Options that every unlearning method shares: objectives, reference, verdict, stop (long: one line of help each)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from transformers.utils import logging

from unlearn_hf.common.checks import FORGET_TOKENS, TRAINABLE_DTYPES, check_device
from unlearn_hf.common.options import option
from unlearn_hf.data.alternatives import read_refusals
from unlearn_hf.gradients.geometry import GEOMETRY_VIEWS
from unlearn_hf.models.loading import configured_width
from unlearn_hf.models.paths import is_adapter
from unlearn_hf.objectives import FORGET_OBJECTIVES, RETAIN_OBJECTIVES
from unlearn_hf.objectives.base import ALTERNATIVE, Needs, Objective
from unlearn_hf.objectives.registry import parameter_options
from unlearn_hf.training.automatic_learning_rate import (
    AutomaticLearningRateArguments,
    check_automatic_learning_rate,
)
from unlearn_hf.training.finetuning_config import FinetuningConfig
from unlearn_hf.training.objective_options import ObjectiveOptions
from unlearn_hf.training.row_defaults import in_words, row_defaults
from unlearn_hf.training.stop_condition import parse_condition

logger = logging.get_logger(__name__)

LEVEL_ESTIMATES = ("probe", "ema", "batch")


@dataclass
class UnlearningConfig(AutomaticLearningRateArguments, ObjectiveOptions, FinetuningConfig):
    """Arguments that every unlearning method shares."""

    can_stop: ClassVar[bool] = True
    """Whether the model can be judged after any step, and a run end there."""

    forget_loss: str = option("npo", "Objective on the forget set.", choices=FORGET_OBJECTIVES.keys())
    retain_loss: str = option(
        "nll",
        "Objective on the retain set. kl is zero before unlearning: for methods that weigh two gradients, a retain "
        "gradient shorter than 1e-5 of the forget gradient (1e-3 in half precision) is rounding noise and counts as "
        "zero, so the first steps follow the forget gradient alone. Under full fine-tuning kl holds a copy of the "
        "model.",
        choices=RETAIN_OBJECTIVES.keys(),
    )
    allow_overlap: bool = option(False, "Train although rows of the forget set are in the retain set too.")
    refusal_file: str | None = option(
        None,
        "Text file with one refusal a line, for objectives that need another answer to the forget questions. "
        "Default: sentences that come along.",
    )
    alternative_column: str | None = option(
        None, "Column of the forget rows that has that other answer. Default: `alternative`, where rows have it."
    )
    reference_cache: str | None = option(
        None,
        "Folder for what the model before unlearning says (likelihoods; distributions or hidden states where that is "
        "smaller than a copy of it); runs that share it compute it once. Default: `reference` in the output folder.",
    )
    reference_device: str | None = option(
        None,
        "Where the frozen copy of the model rests and computes that objectives with distributions or hidden states "
        "of the model before unlearning need when no adapter is trained; `cpu` keeps it out of accelerator memory. "
        "Default: beside the model, or no copy where a file in `reference_cache` is smaller.",
    )
    reference_dtype: str | None = option(
        None,
        "Precision of that copy: bfloat16 halves it, at rounding errors of the reference's distribution. Default: "
        "that of the model.",
        choices=TRAINABLE_DTYPES,
    )
    gradient_buffer_device: str | None = option(
        None,
        "Where the gradients of the two objectives rest between backward passes, for methods that keep both: `cpu` "
        "frees one or two copies of accelerator memory. Default: where the gradients are.",
    )
    retain_budget: float | None = option(
        None,
        "Stop when the retain loss has risen by more than this share of its value before unlearning (0.02: two "
        "hundredths), and keep the last weights measured within it; a copy of the parameters rests on the CPU. "
        "Default: no budget.",
        only="positive",
    )
    level_estimate: str = option(
        "probe",
        "What the rise of the retain loss is read from, for EUPMU's constraint `level` and `retain_budget`. probe: a "
        "fixed sample of retain rows, dropout off. batch: the rows of the step, after it, against the same rows "
        "before unlearning. ema: exponential moving averages of both. A budget is always decided by a probe, which "
        "batch and ema ask for as soon as they are above it.",
        choices=LEVEL_ESTIMATES,
    )
    level_probe_rows: int = option(64, "Retain rows in the probe.", only="positive")
    level_probe_interval: int = option(
        5,
        "Optimizer steps between two probes; with `retain_budget` also after 1, 2, 4, ... steps at first.",
        only="positive",
    )
    level_ema_decay: float = option(0.9, "Decay per step of the moving averages.")
    log_gradient_geometry: str = option(
        "none",
        "total: log norms and cosine of the two gradients with every method (those that need them do so anyway). "
        "layers: also write them by layer and part to gradient_geometry.jsonl in the output folder. Both keep the "
        "two gradients apart, as gradient surgery does: one more copy of the gradients.",
        choices=GEOMETRY_VIEWS,
    )

    forget_tokens: str = option(
        "answer",
        "Tokens of the answers to forget that are trained, and that stop_when measures. answer: all. new_words: "
        "without words that the question has, too, so that a garbled name does not pass for a forgotten fact.",
        choices=FORGET_TOKENS,
    )
    stop_when: str | None = option(
        None,
        "Stop when this holds, such as 'forget_prob < 0.1 and retain_prob > 0.95 * initial' (names: forget_prob, "
        "retain_prob, step, epoch; initial: before unlearning). Where it never does, the weights with the best "
        "trade-off are kept; a copy of the trained parameters rests on the CPU.",
    )
    stop_on_path: bool = option(
        False,
        "Once enough is forgotten, look at the nearest point to the weights before unlearning, on the straight line "
        "to those of now, at which that is still so: it keeps more. Needs stop_when; two more copies of the trained "
        "parameters rest on the CPU.",
    )
    stop_interval: int = option(5, "Optimizer steps between two looks at that condition.", only="positive")
    stop_rows: int = option(32, "Rows of each set that it is measured on, at most.", only="positive")
    verdict: bool | None = option(
        None,
        "Measure a sample of rows before and after training (likelihoods, greedy and sampled answers), and say what "
        "was forgotten and kept. Default: where rows are texts.",
    )
    verdict_rows: int = option(
        32, "Rows to forget that the verdict looks at, at most; of rows to keep twice as many.", only="positive"
    )
    verdict_samples: int = option(5, "Sampled answers to each of them.", only="positive")
    held_back_rows: int = option(
        0,
        "Retain rows that are not trained on, so that the verdict on what was kept is on unseen rows.",
        only="not negative",
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
            retain_dataset: rows to keep; `None` where the method needs none.
            adapter: whether the trainer will get a `peft_config`.
            **given: options, which win over what would be chosen.
        """
        chosen = row_defaults(
            len(forget_dataset),
            len(retain_dataset or ()),
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
        super().__post_init__()
        if not 0 <= self.level_ema_decay < 1:
            raise ValueError(f"level_ema_decay: {self.level_ema_decay} is not in [0, 1); 0 is no averaging.")
        if self.stop_when is not None:
            parse_condition(self.stop_when)
        elif self.stop_on_path:
            raise ValueError("stop_on_path: it needs a condition for what is enough; give stop_when, or leave it out.")
        self._check_objectives()
        for name in ("reference_device", "gradient_buffer_device"):
            check_device(name, getattr(self, name))
        for name in ("reference_device", "reference_dtype"):
            if not self.needs_reference_model and getattr(self, name) is not None:
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} has no meaning for forget_loss {self.forget_loss!r} and "
                    f"retain_loss {self.retain_loss!r}, which need no copy of the model; leave it out."
                )
        check_automatic_learning_rate(self)

    def _check_objectives(self) -> None:
        """Refuse parameters out of range, or of objectives that were not chosen, and levels that do not exist."""
        chosen = (self.forget_objective, self.retain_objective)
        pair = f"forget_loss {self.forget_loss!r} and retain_loss {self.retain_loss!r}"
        for name, parameter in parameter_options().items():
            value = getattr(self, name, None)
            if value is not None and not any(name in objective.parameter_names for objective in chosen):
                owners = " and ".join(dict.fromkeys(parameter.owners))
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

    def check_logarithms(self, who: str) -> None:
        """Raise a `ValueError` unless both losses have a logarithm, which `who` (the beginning of a clause) takes."""
        if not self.forget_objective.non_negative:
            positive = [name for name, objective in FORGET_OBJECTIVES.items() if objective.non_negative]
            raise ValueError(
                f"forget_loss: {self.forget_loss!r} is negative, and {who} takes the logarithm of the loss; use one "
                f"of {', '.join(positive)}."
            )
        if self.retain_objective.zero_before_unlearning:
            raise ValueError(
                f"retain_loss: {self.retain_loss!r} is zero at the start, and {who} takes the logarithm of the loss; "
                "use 'nll'."
            )

    def check_fills_batch(self, retain: int) -> None:
        """Raise a `ValueError` unless what is trained on of `retain` rows fills a batch."""
        batch_size = self.per_device_train_batch_size * self.world_size
        trained = retain - self.held_back_rows
        if self.trains and trained < batch_size:
            raise ValueError(
                f"retain_dataset: {trained} rows do not fill one batch of {batch_size} "
                f"(per_device_train_batch_size {self.per_device_train_batch_size} x {self.world_size} processes); "
                "give more rows or a smaller batch."
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
