"""Who's Harry Potter: take away what a model reinforced on the forget set finds likelier."""

from __future__ import annotations

import copy
import os
import warnings
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import nn
from transformers.trainer_utils import TrainOutput

from unlearn_hf.common.options import option
from unlearn_hf.methods.forget_tuning import ForgetTuningConfig, ForgetTuningTrainer
from unlearn_hf.models.loading import configuration_of, load_model
from unlearn_hf.models.paths import check_model_path, is_adapter
from unlearn_hf.models.whp import WHPForCausalLM, WHPModelConfig

_OF_TRAINING = (
    *("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("lr_scheduler_type", "warmup_steps", "optim", "weight_decay", "max_grad_norm", "trainable_parameters"),
)


@dataclass
class WHPConfig(ForgetTuningConfig):
    """Arguments of `WHPTrainer`; those of training are the ones of the reinforced model."""

    alpha: float = option(
        1.0,
        "How much of what the reinforced model finds likelier is taken away; positive.",
        only="positive and finite",
    )
    reinforced_model: str | None = option(
        None,
        "Hub id or folder of a model that was trained further on the forget set. Nothing is trained then. Default: "
        "the run trains it.",
    )

    @property
    def trains(self) -> bool:
        """Whether there is a step to make: not with a reinforced model that is there already."""
        return self.reinforced_model is None

    def __post_init__(self) -> None:
        """Check the fields; what only training would use is told to be without effect where nothing is trained.

        Raises:
            ValueError: for an `alpha` that is not positive, a reinforced model that is not there or is an adapter, or
                neither such a model nor steps to train one.
        """
        if self.reinforced_model is None:
            for name in ("max_steps", "num_train_epochs"):
                if getattr(self, name) == 0 and (name == "max_steps" or self.max_steps <= 0):
                    raise ValueError(
                        f"{name}: 0 trains no reinforced model, and none is named; give steps, or reinforced_model."
                    )
        else:
            check_model_path(self.reinforced_model, "reinforced_model", self.trust_remote_code)
            _refuse_adapter(self.reinforced_model, "reinforced_model")
        super().__post_init__()
        defaults = {item.name: item.default for item in fields(self)}
        idle = [name for name in _OF_TRAINING if getattr(self, name) != defaults[name]] if not self.trains else []
        if idle:
            given = {name: getattr(self, name) for name in idle}
            values = ", ".join(f"{name} {getattr(value, 'value', value)}" for name, value in given.items())
            warnings.warn(
                f"reinforced_model: with one that is there nothing is trained; of no effect: {values}.", stacklevel=2
            )


class WHPTrainer(ForgetTuningTrainer):
    """Logit arithmetic: `v_base - alpha * relu(v_reinforced - v_base)`, the second tuned on the forget set.

    What comes out is a `WHPForCausalLM`: both models side by side, twice the size and the time of one. It is saved
    with its code, so that plain transformers loads it with `trust_remote_code=True`. Training descends on the forget
    rows' cross-entropy, without the retain rows, and checkpoints hold the reinforced model, so that a run can be
    resumed; a copy of the base model rests on the CPU. A fine-tuning that diverged is not used, and its last sound
    weights stay, as told. Adapters and sharded training are refused.

    The paper goes on to train one model on generic predictions made of these logits and of a dictionary of anchors;
    here the logits themselves are the method.

    Source: Eldan and Russinovich, "Who's Harry Potter? Approximate Unlearning in LLMs", arXiv 2310.02238.
    """

    config_class = WHPConfig
    args: WHPConfig
    models_saved: ClassVar[int] = 2
    paper: ClassVar[dict[str, str]] = {
        "title": "Who's Harry Potter? Approximate Unlearning in LLMs",
        "url": "https://arxiv.org/abs/2310.02238",
        "citation": "Ronen Eldan and Mark Russinovich. 2023.",
    }

    def __init__(
        self, model: Any, args: WHPConfig, *positional: Any, peft_config: Any | None = None, **named: Any
    ) -> None:
        if peft_config is not None or hasattr(model, "peft_config"):
            raise ValueError(
                "peft_config: whp runs two whole models side by side, and has no place for an adapter; leave it out "
                "(--use_lora), or merge it first."
            )
        if isinstance(model, (str, os.PathLike)):
            _refuse_adapter(model, "model")
        if getattr(args, "reinforced_model", None) is not None:
            _check_vocabularies(model, args)
        super().__init__(model, args, *positional, peft_config=peft_config, **named)

    def kept_before(self) -> nn.Module:
        """The model before, or, where nothing will be trained, no copy but the model itself.

        Raises:
            ValueError: when there are two models side by side already.
        """
        if isinstance(self.model, WHPForCausalLM):
            raise ValueError("train: the model is base and reinforced model already; begin with the base model.")
        if not self.args.trains:
            return self.model
        return copy.deepcopy(self.model).cpu()

    def finish_with(self, before: Any) -> None:
        """Put both models side by side."""
        reinforced: Any = self.model
        if self.args.reinforced_model is not None:
            reinforced = load_model(
                self.args.reinforced_model,
                self.args.model_dtype,
                attention=self.args.attn_implementation,
                trust_remote_code=self.args.trust_remote_code,
                field="reinforced_model",
            )
        else:
            # Mixed precision has wrapped its forward pass; the pair is evaluated in the precision of the weights.
            reinforced = self.accelerator.unwrap_model(reinforced, keep_fp32_wrapper=False)
        pair: Any = WHPForCausalLM.of(before, reinforced, self.args.alpha)
        self.model = self.model_wrapped = pair.to(self.args.device)

    def train(self, *positional: Any, **named: Any) -> Any:
        """Train the reinforced model, or take the one that is given, and put both side by side."""
        if self.args.trains:
            return super().train(*positional, **named)
        before = self.kept_before()
        self.run_verdict.begin(before)
        self.finish_with(before)
        return TrainOutput(0, 0.0, {})


def _refuse_adapter(model: str | os.PathLike[str], name: str) -> None:
    if is_adapter(model):
        raise ValueError(
            f"{name}: {os.fspath(model)!r} is an adapter, and whp runs two whole models side by side; merge it first "
            "(unlearn-hf merge)."
        )


def _check_vocabularies(model: Any, args: WHPConfig) -> None:
    """Refuse vocabularies of different sizes before any weights are loaded."""
    base, reinforced = (configuration_of(each, args.trust_remote_code) for each in (model, args.reinforced_model))
    WHPModelConfig(base=base, reinforced=reinforced, alpha=args.alpha)
