"""Fine-tuning on answers, with evaluators in the loop: what unlearning starts from, and the base of its trainers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

from unlearn_hf.data.collator import UnlearningCollator
from unlearn_hf.data.encoding import encode_dataset
from unlearn_hf.data.row_checks import warn_of_repeats
from unlearn_hf.data.templates import resolve_template
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.likelihood.packed_rows import by_sequence
from unlearn_hf.models.loading import (
    check_causal,
    check_four_bit_model,
    check_vocabulary,
    load_model,
    pad_token_id,
    tokenizer_for,
)
from unlearn_hf.models.paths import check_model_path
from unlearn_hf.models.sharding import keep_outputs_in_float32, shards
from unlearn_hf.models.trained_parameters import prepare_model
from unlearn_hf.training.checkpointing_trainer import CheckpointedTrainer
from unlearn_hf.training.divergence import DivergenceGuard, total_norm
from unlearn_hf.training.evaluators import Evaluator, run_evaluators
from unlearn_hf.training.finetuning_config import FinetuningConfig
from unlearn_hf.training.optimizer_step import Window, count_totals
from unlearn_hf.training.packing_trial import packs_rows
from unlearn_hf.training.progress import show_progress


class FinetuningTrainer(CheckpointedTrainer):
    """A `Trainer` for answers: exact token averages, logits at answer positions only, evaluators in the loop.

    Args:
        model: a hub id, a folder (model or adapter), a `PreTrainedModel` or a `PeftModel`.
        args: the configuration.
        train_dataset: raw rows (`question`/`answer`, `prompt`/`completion`, `messages` or `text`) or encoded ones.
        eval_dataset: rows, or a dict of them, whose loss `evaluate` reports.
        evaluators: called by `evaluate`; their metrics are logged as `eval_<name>`.
        processing_class: the tokenizer; by default the one that belongs to the model.
        peft_config: an adapter to add.
        callbacks: further callbacks.
        **trainer_arguments: further arguments of `transformers.Trainer`; with `model_init`, a function that makes the
            model, `model` is `None`, and `hyperparameter_search` works.

    Attributes:
        divergence: why the run was stopped, or `None`.
        divergence_advice: what helps against it.
        window: the optimizer step at hand, once there is one.

    Raises:
        ValueError: for bad arguments, before a model is loaded.
    """

    divergence_advice = "Lower learning_rate."
    config_class: type[FinetuningConfig] = FinetuningConfig
    # The base class is vaguer about these; here they are always set.
    args: FinetuningConfig
    model: Any
    processing_class: Any
    window: Window
    # Losses are divided by the totals of the whole step, so the Trainer must not divide them again.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | None,
        args: FinetuningConfig,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        evaluators: Sequence[Evaluator] = (),
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: Any | None = None,
        callbacks: list[TrainerCallback] | None = None,
        **trainer_arguments: Any,
    ) -> None:
        self.check_configuration(args)
        model = self.given_or_fresh(model, args.seed, trainer_arguments)
        if isinstance(model, os.PathLike):
            model = os.fspath(model)
        if args.n_gpu > 1:
            raise ValueError(
                f"args: {args.n_gpu} GPUs in one process would use nn.DataParallel, which is not supported; launch "
                "one process per GPU with `accelerate launch`, or set CUDA_VISIBLE_DEVICES to one GPU."
            )
        if isinstance(model, str):
            check_model_path(model, "model", args.trust_remote_code)
        if args.load_in_4bit:
            check_four_bit_model(model, peft_config)
        self.args = args
        tokenizer = tokenizer_for(model, processing_class)
        if tokenizer.eos_token_id is None:
            warnings.warn(
                "processing_class: the tokenizer has no end-of-text token, so answers are trained without an end and "
                "generation never stops by itself; set tokenizer.eos_token.",
                stacklevel=2,
            )
        train_dataset = self._prepare_train_dataset(train_dataset, tokenizer)
        if isinstance(eval_dataset, Mapping):
            eval_dataset = {name: self._encode(rows, tokenizer, name) for name, rows in eval_dataset.items()}
        elif eval_dataset is not None:
            eval_dataset = self._encode(eval_dataset, tokenizer, "eval_dataset")
        elif args.eval_strategy != "no":
            eval_dataset = {}  # evaluators alone judge the model; the Trainer only asks that something is there
        if isinstance(model, str):
            model = load_model(
                model,
                args.model_dtype,
                attention=args.attn_implementation,
                trust_remote_code=args.trust_remote_code,
                field="model",
                load_in_4bit=args.load_in_4bit,
            )
        model = prepare_model(model, args, peft_config)
        check_causal(model)
        check_vocabulary(model, tokenizer)
        self.evaluators = list(evaluators)
        self.packed: bool | None = None  # decided on the first batch
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            data_collator=UnlearningCollator(pad_token_id(tokenizer)),
            callbacks=callbacks,
            **trainer_arguments,
        )
        show_progress(self)
        self.divergence: str | None = None
        self.has_own_optimizer = bool({"optimizers", "optimizer_cls_and_kwargs"} & trainer_arguments.keys())
        self.divergence_guard = DivergenceGuard(self)

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator, again for every trial of a search."""
        super().create_accelerator_and_postprocess()
        keep_outputs_in_float32(self.accelerator)

    def training_begins(self) -> None:
        """Called when model and optimizer are wrapped and restored, before the first step."""
        self.divergence = None
        self.divergence_guard.begin()

    @property
    def current_losses(self) -> dict[str, float]:
        """The losses of the last step, by what they are of, where they are numbers already."""
        return {}

    @classmethod
    def check_configuration(cls, args: Any) -> None:
        """Raise a `TypeError` unless `args` is a configuration of this trainer."""
        if not isinstance(args, cls.config_class):
            raise TypeError(f"args: {cls.__name__} takes a {cls.config_class.__name__}, not a {type(args).__name__}.")

    def _prepare_train_dataset(self, dataset: Any, tokenizer: PreTrainedTokenizerBase) -> Dataset | None:
        return None if dataset is None else self._encode(dataset, tokenizer, "train_dataset")

    def _encode(self, rows: Any, tokenizer: PreTrainedTokenizerBase, name: str) -> Any:
        """Encode `rows`; the first process does it, the others read what it cached."""
        if len(rows) == 0:
            raise ValueError(f"{name}: the dataset is empty; give at least one row.")
        template = resolve_template(tokenizer, self.args.template)
        with self.args.main_process_first(desc=f"encoding {name}"):
            encoded = encode_dataset(rows, tokenizer, template, self.args.max_length, name)
        if name != "eval_dataset" and self.args.process_index == 0:
            warn_of_repeats(encoded, name)
        return encoded

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """Fetch the micro-batches of one optimizer step and count what its losses are divided by."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
        self.window = Window(batches, count_totals(batches, self.accelerator))
        if self.packed is None:
            self.packed = packs_rows(self, batches[0], device)
        return batches, self.window.totals

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """One forward and backward pass; attention stays within sequences when activations are computed again."""
        with by_sequence(model, bool(self.packed)):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if "labels" in inputs and hasattr(self, "window"):  # trainers of two sets look at both together
            self.window.seen += 1
            self.window.record("plain", loss)
            if self.window.is_last:
                self._check_update(model)
        return loss

    def _check_update(self, model: nn.Module) -> None:
        """All gradients of plain rows are there: drop an update that is not finite."""
        loss = self.window.losses["plain"]
        norm = total_norm(parameter.grad for parameter in model.parameters())
        # One verdict for all ranks: the mean is finite only where all values are.
        values = self.accelerator.reduce(torch.stack([loss, norm.to(loss)]), "mean").tolist()
        if not self.divergence_guard.allows({"training": values[0]}, values[1]):
            self._leave_out_update(model)

    def _leave_out_update(self, model: nn.Module) -> None:
        """Take all gradients away, so that the optimizer changes nothing."""
        scaled = getattr(self.accelerator, "scaler", None) is not None
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for index, parameter in enumerate(trained):
            # A gradient scaler must see something, and skip the step.
            parameter.grad = torch.full_like(parameter, torch.inf) if scaled and index == 0 else None

    def step_ended(self) -> None:
        """Look at weights that are about to be written."""
        self.divergence_guard.before_leaving()

    epoch_ended = step_ended

    @property
    def update_was_dropped(self) -> bool:
        """Whether this step has changed nothing: its update was not finite, or a scaler has skipped it."""
        return bool(self.accelerator.optimizer_step_was_skipped) or self.divergence_guard.dropped

    def optimizer_stepped(self) -> None:
        """Parameters are new: take them back where they are not finite."""
        if not self.update_was_dropped:
            self.divergence_guard.after_update()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Cross-entropy of the answers: summed NLL over the number of answer tokens of the whole step."""
        likelihood = answer_likelihood(model, inputs, packed=bool(self.packed))
        total = num_items_in_batch.of("tokens", "plain") if hasattr(num_items_in_batch, "of") else None
        loss = likelihood.nll.sum() / (total if total is not None else likelihood.tokens.sum().clamp(min=1))
        return (loss, {"nll": likelihood.nll}) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Estimate the operations of a step, over both sets when the batch has two."""
        if "input_ids" in inputs:
            return super().floating_point_ops(inputs)
        return sum(super(FinetuningTrainer, self).floating_point_ops(part) for part in inputs.values())

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Losses of the evaluation data, then the evaluators; all logged, and seen by best-checkpoint selection.

        Per-sample values of evaluator runs are kept in `evaluations/step-N` of the output folder.
        """
        metrics: dict[str, float] = {}
        if eval_dataset is not None and not isinstance(eval_dataset, str | Mapping):
            eval_dataset = self._encode(eval_dataset, self.processing_class, "eval_dataset")
        if eval_dataset or self.eval_dataset:
            metrics.update(super().evaluate(eval_dataset, ignore_keys, metric_key_prefix))
        if metric_key_prefix != "eval" or not self.evaluators or eval_dataset is not None:
            return metrics
        values = run_evaluators(
            self.evaluators,
            self._model_for_evaluation(),
            self.processing_class,
            self.accelerator,
            self.args.output_dir,
            self.state.global_step,
        )
        found = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(dict(found))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return metrics | found

    def _model_for_evaluation(self) -> nn.Module:
        """The model without a data-parallel wrapper; sharded models stay wrapped."""
        if shards(self.accelerator):
            return self.model_wrapped
        return self.model
