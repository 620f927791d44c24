"""The base of every unlearning method: two objectives, two weights, one optimizer step."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unlearn_hf.common.files import whole_file
from unlearn_hf.data.alternatives import alternative_rows
from unlearn_hf.data.forget_retain_pairs import PairedDataset
from unlearn_hf.data.row_checks import check_overlap
from unlearn_hf.evaluation.verdict.facts import Verdict
from unlearn_hf.gradients.buffers import GradientBuffers
from unlearn_hf.gradients.geometry import GradientGeometryFile, norms_and_cosine
from unlearn_hf.gradients.weightings import NOISE_FLOOR_FLOAT32, NOISE_FLOOR_HALF, without_noise
from unlearn_hf.models.loading import configured_layers
from unlearn_hf.models.sharding import reshard, shards
from unlearn_hf.models.wrappers import check_layer, has_dropout
from unlearn_hf.objectives.base import ALTERNATIVE
from unlearn_hf.reference.model_before import ReferenceModel
from unlearn_hf.reference.nll_column import ReferenceColumns
from unlearn_hf.reference.stored import StoredReference, choose_reference
from unlearn_hf.training.automatic_learning_rate import AutomaticLearningRate, LearningRateProbe
from unlearn_hf.training.backends import check_two_gradients
from unlearn_hf.training.card import write_card
from unlearn_hf.training.checkpoints import METHOD_STATE_FILE
from unlearn_hf.training.contributions import batch_names, contributions
from unlearn_hf.training.divergence import total_norm
from unlearn_hf.training.evaluators import Evaluator
from unlearn_hf.training.finetuning import FinetuningTrainer
from unlearn_hf.training.method_hooks import MethodHooks
from unlearn_hf.training.optimizer_step import Losses, random_state, replay
from unlearn_hf.training.retain_level import RetainBudget, RetainLevel
from unlearn_hf.training.run_verdict import RunVerdict
from unlearn_hf.training.stop_condition import parse_condition
from unlearn_hf.training.stop_rule import StopRule
from unlearn_hf.training.unlearning_config import UnlearningConfig


class UnlearningTrainer(MethodHooks, FinetuningTrainer):
    """Minimise `w_f l_f + w_r l_r` (or combine the two gradients with these weights), step by step.

    A method says how the two weights are chosen. If they are known before the losses, it overrides `loss_weights`
    and costs one backward pass per set into one gradient. If they depend on this step's losses or gradients, it sets
    `gradient_level` and overrides `gradient_weights`: the two gradients are kept apart, accumulated over
    micro-batches, reduced over ranks, and only then combined. A method with a state updates it in `after_step` and
    names it in `method_state`, which is saved with every checkpoint. `MethodHooks` has all that can be overridden.

    Args:
        model: a hub id, a folder (model or adapter), a `PreTrainedModel` or a `PeftModel`.
        args: the method's configuration.
        forget_dataset: rows to forget, raw (`question`/`answer`, ...) or encoded.
        retain_dataset: rows to keep, likewise; `None` where the method does not train on them.
        eval_dataset: rows, or a dict of them, whose loss `evaluate` reports.
        evaluators: called by `evaluate`.
        processing_class: the tokenizer; by default the one that belongs to the model.
        peft_config: an adapter to add.
        callbacks: further callbacks.
        holdout_dataset: rows like those to forget that the model has never seen, for the verdict to compare with.

    Attributes:
        ended: why the method has ended the run by itself, or `None`.
        retain_level: the rise of the retain loss since before unlearning, where something follows it.
        stop_rule: what stops the run when `stop_when` holds, where that is set.
        retain_budget: what ends the run when that rise is above `retain_budget`, where that is set.

    Raises:
        ValueError: for bad arguments, before a model is loaded.
    """

    config_class: type[UnlearningConfig] = UnlearningConfig
    args: UnlearningConfig
    train_dataset: Any
    checkpoint_files = (METHOD_STATE_FILE,)
    divergence_advice = "Lower learning_rate, or use a bounded forget_loss (npo, simnpo)."

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | None,
        args: UnlearningConfig,
        forget_dataset: Any,
        retain_dataset: Any,
        eval_dataset: Any = None,
        evaluators: Sequence[Evaluator] = (),
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: Any | None = None,
        callbacks: list[TrainerCallback] | None = None,
        holdout_dataset: Any = None,
        **trainer_arguments: Any,
    ) -> None:
        self.check_configuration(args)
        self.args = args
        self.ended: str | None = None
        self.objectives = {"forget": args.forget_objective, "retain": args.retain_objective}
        self.needs = {"forget": args.needs_of("forget"), "retain": args.needs_of("retain")}
        self._parameters = {name: args.parameters_of(objective) for name, objective in self.objectives.items()}
        if self._keeps_gradients_apart:
            check_two_gradients(args, type(self).__name__)
        for name, rows in (("forget_dataset", forget_dataset), ("retain_dataset", retain_dataset)):
            needed = name == "forget_dataset" or self.uses_retain_rows or args.held_back_rows
            if needed and (rows is None or len(rows) == 0):
                raise ValueError(f"{name}: the dataset is empty; unlearning needs rows to forget and rows to keep.")
        if retain_dataset is not None and len(retain_dataset):
            self.check_fills_batch(args, len(retain_dataset))
        elif self._keeps_gradients_apart:
            raise ValueError(
                f"log_gradient_geometry: {args.log_gradient_geometry!r} compares with the gradient of rows to keep, and "
                "there are none; leave it out, or give retain_dataset."
            )
        else:
            retain_dataset = None
        model = self.given_or_fresh(model, args.seed, trainer_arguments)
        self._check_layers(model)
        self.run_verdict = RunVerdict(self, forget_dataset, retain_dataset, holdout_dataset)
        if not all(objective.reaches_head(self.needs[name]) for name, objective in self.objectives.items()):
            # Data parallelism must not wait for gradients of the layers above, and of the head.
            args.ddp_find_unused_parameters = True
        super().__init__(
            model=model,
            args=args,
            train_dataset={"forget": forget_dataset, "retain": retain_dataset},
            eval_dataset=eval_dataset,
            evaluators=evaluators,
            processing_class=processing_class,
            peft_config=peft_config,
            callbacks=callbacks,
            **trainer_arguments,
        )
        self.gradients: GradientBuffers | None = None
        self._geometry: GradientGeometryFile | None = None
        self._grams: Tensor | None = None
        self.reference_columns = ReferenceColumns(self)
        self.reference: ReferenceModel | StoredReference | None = None
        if args.needs_reference_model:
            self.reference = choose_reference(self, self._compared, self._layers_compared)
        self._first_state: dict[str, Any] | None = None
        self._resumes = False
        self._weights: tuple[float, float] = (1.0, 1.0)
        self._losses: Losses | None = None
        self._measurements: dict[str, list[float]] = {}
        self.learning_rate_probe = LearningRateProbe(self) if args.autolr else None
        self._repeats_dropout = has_dropout(self.model) or args.neftune_noise_alpha is not None
        self.retain_level = RetainLevel(self) if self.follows_retain_level else None
        self._budget_level: RetainLevel | None = None
        self.retain_budget: RetainBudget | None = None
        if args.retain_budget is not None:
            assert self.retain_level is not None
            if args.level_estimate != "probe":
                self._budget_level = RetainLevel(self, "probe")
            level = self._budget_level or self.retain_level
            self.retain_budget = RetainBudget(self, level, args.retain_budget)
        self.stop_rule: StopRule | None = None
        if args.stop_when is not None:
            retain = self.run_verdict.held_back or self.train_dataset.retain
            self.stop_rule = StopRule(self, parse_condition(args.stop_when), retain)
        self.add_callback(_UnlearningCallback(self))

    @staticmethod
    def check_fills_batch(args: UnlearningConfig, retain: int) -> None:
        """Raise a `ValueError` unless the retain rows that are trained on fill a batch."""
        batch_size = args.per_device_train_batch_size * args.world_size
        trained = retain - args.held_back_rows
        if trained < batch_size:
            raise ValueError(
                f"retain_dataset: {trained} rows do not fill one batch of {batch_size} "
                f"(per_device_train_batch_size {args.per_device_train_batch_size} x {args.world_size} processes); "
                "give more rows or a smaller batch."
            )

    def _prepare_train_dataset(self, dataset: Any, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        args = self.args
        seed = args.data_seed if args.data_seed is not None else args.seed
        along = {}
        if ALTERNATIVE in self.needs["forget"].answers:
            rows = alternative_rows(dataset["forget"], args.refusal_file, args.alternative_column, seed)
            along[ALTERNATIVE] = self._encode(rows, tokenizer, "alternative answers")
        forget = self._encode(dataset["forget"], tokenizer, "forget_dataset")
        retain = None
        if dataset["retain"] is not None:
            retain = self._encode(dataset["retain"], tokenizer, "retain_dataset")
            check_overlap(forget, retain, args.allow_overlap)
        retain = self.run_verdict.take_rows(forget, retain, tokenizer)
        return PairedDataset(forget, retain, seed, **along)

    @property
    def _compared(self) -> dict[str, int | None]:
        """The sets that are compared with the model before unlearning: by a layer's output, or (`None`) logits."""
        return {
            each: self._parameters[name].layer if "hidden" in needs.reference else None
            for name, needs in self.needs.items()
            if {"logits", "hidden"} & set(needs.reference)
            for each in batch_names(name, needs)
        }

    @property
    def _layers_compared(self) -> int | None:
        """How many layers of the model before unlearning are needed; `None` for all of them."""
        if any("logits" in needs.reference for needs in self.needs.values()):
            return None
        return 1 + max(self._parameters[name].layer for name, needs in self.needs.items() if needs.hidden)

    def _check_layers(self, model: Any) -> None:
        """Refuse a layer that the model does not have, before it is loaded where its configuration is at hand."""
        layers = [self._parameters[name].layer for name, needs in self.needs.items() if needs.hidden]
        for layer in layers:
            check_layer(layer, configured_layers(model, self.args.trust_remote_code))

    @property
    def reaches_head(self) -> bool:
        """Whether some objective has a gradient in every layer and the head."""
        return any(objective.reaches_head(self.needs[name]) for name, objective in self.objectives.items())

    @property
    def sets_with_reference(self) -> set[str]:
        """The sets whose rows need the NLL of their answers under the model before unlearning."""
        sets = {"retain"} if self.needs_retain_reference else set()
        for name, needs in self.needs.items():
            if "nll" in needs.reference:
                sets.update(batch_names(name, needs))
        return sets

    def training_begins(self) -> None:
        """Called when model and optimizer are wrapped and restored, before the first step."""
        if shards(self.accelerator):
            # Only now, because no rank alone can be asked.
            self.reference_columns.measure(self._model_for_evaluation())
            self.run_verdict.begin(self._model_for_evaluation(), self._resumes)
            reshard(self.model)
        if self._keeps_gradients_apart:
            # Only now, because sharding replaces the parameters.
            self.gradients = GradientBuffers(self.model.parameters(), device=self.args.gradient_buffer_device)
        super().training_begins()
        for follower in (self.retain_level, self._budget_level, self.retain_budget, self.stop_rule):
            if follower is not None:
                follower.begin()
        if self.args.log_gradient_geometry == "layers" and self.is_world_process_zero():
            names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
            self._geometry = GradientGeometryFile(Path(str(self.args.output_dir)), names, self.state.global_step)

    @property
    def _keeps_gradients_apart(self) -> bool:
        """Whether there are two gradients to choose weights from, or to look at."""
        return self.gradient_level or self.args.log_gradient_geometry != "none"

    # ---- one optimizer step ------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Backward passes of both objectives, one after the other, so that one graph is alive at a time."""
        window = self.window
        assert window is not None
        window.seen += 1
        if window.seen == 1:
            self._weights = (1.0, 1.0) if self.gradients is not None else self.loss_weights()
        if self.is_deepspeed_enabled:
            loss = super().training_step(model, inputs, num_items_in_batch)
        else:
            loss = self._separate_backward_passes(model, inputs, num_items_in_batch)
        if window.is_last:
            self._finish_window(model)
        return loss

    def _separate_backward_passes(self, model: nn.Module, inputs: dict[str, Any], totals: Any) -> Tensor:
        """Backpropagate each objective by itself; leave out what has weight zero."""
        device = self.args.device
        model.train()
        loss = torch.zeros((), device=self.args.device)
        weights = dict(zip(Losses._fields, self._weights, strict=True))
        active = [name for name, weight in weights.items() if weight != 0]
        for name in Losses._fields:
            if name not in inputs:
                continue
            batch = self._batches_of(name, inputs)
            if name not in active:
                # The loss is wanted (a dual variable follows it), its gradient is not.
                wanted = name == "forget" or self.needs_retain_loss
                if wanted or name in self._measured_again:
                    # What only a probe asks for draws no random numbers, so that the run is the same without it.
                    here = contextlib.nullcontext() if wanted else replay(random_state(device), device)
                    with here, torch.no_grad(), self.compute_loss_context_manager():
                        self.compute_loss(model, self._prepare_inputs(batch), num_items_in_batch=totals)
                    reshard(model)
                continue
            if self.gradients is not None:
                context: Any = self.gradients.collect(name)
            elif name != active[-1] and isinstance(model, DistributedDataParallel):
                context = model.no_sync()  # the other backward pass reduces the sum of both
            else:
                context = contextlib.nullcontext()
            with context:
                loss = loss + super().training_step(model, batch, totals)
        return loss

    @property
    def _measured_again(self) -> tuple[str, ...]:
        """The losses that are measured again after this step: by the method, or by a probe of the learning rate."""
        probe = self.learning_rate_probe
        if probe is None or not probe.due or "retain" in self.remeasured:
            return self.remeasured
        return (*self.remeasured, "retain")

    def _batches_of(self, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """The batches that the loss `name` is about."""
        return {batch: inputs[batch] for batch in {name, *batch_names(name, self.needs[name])}}

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted sum of the objectives whose batches are in `inputs`; a plain batch gives the cross-entropy."""
        if "labels" in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss: Any = 0.0
        for name, weight in zip(Losses._fields, self._weights, strict=True):
            if name in inputs:
                if name in self._measured_again and self._repeats_dropout:
                    assert self.window is not None
                    self.window.random_states.setdefault(name, []).append(random_state(self.args.device))
                part = self._objective_loss(model, name, inputs)
                assert self.window is not None
                self.window.record(name, part)
                loss = loss + weight * part
        return (loss, {}) if return_outputs else loss

    def _objective_loss(self, model: nn.Module, name: str, batches: dict[str, dict[str, Tensor]]) -> Tensor:
        """Contributions of one micro-batch to the loss `name`, over the total of the whole step."""
        assert self.window is not None
        objective, names = self.objectives[name], batch_names(name, self.needs[name])
        found = contributions(
            objective,
            self._parameters[name],
            model,
            [batches[each] for each in names],
            self.reference,
            self.accelerator.unwrap_model(model),
            bool(self.packed),
            self.accelerator.autocast,  # which accelerate adds to the forward of the trained model alone
        )
        return found.sum() / self.window.totals.of(objective.unit, names[0])

    def _finish_window(self, model: nn.Module) -> None:
        """All gradients are there: reduce losses, combine gradients, or drop an update that is not finite."""
        assert self.window is not None
        scaler = getattr(self.accelerator, "scaler", None)
        scale = scaler.get_scale() if scaler is not None else 1.0
        gram = self._grams = None
        gradients = [parameter.grad for parameter in model.parameters()]
        if self.gradients is not None:
            self.gradients_collected(scale)
            gradients = [each for name in Losses._fields for each in self.gradients.collected(name)]
        with_grams = self.gradients is not None and (
            self.needs_gram or scaler is not None or self.args.log_gradient_geometry != "none"
        )
        losses, norm = self.window.reduced(self.accelerator, None if with_grams else total_norm(gradients))
        self._losses = losses
        if with_grams:
            assert self.gradients is not None
            self._grams = self.gradients.grams(scale)
            gram = self._grams.sum(0)
            norm = math.sqrt(gram.trace())
        measured = {name: value for name, value in losses._asdict().items() if name in self.window.losses}
        if not self.divergence_guard.allows(measured, norm, gram):
            self._leave_out_update(model)
            return
        if self.gradients is not None:
            weights = self._choose_weights(gram, losses)
            if self.ended is None and scaler is None and not self.divergence_guard.allows_weights(weights, norm):
                self._leave_out_update(model)
                return
            rule = self.elementwise_rule()
            if rule is None or (scaler is not None and self._grams is None):
                self.gradients.combine(weights)
            else:
                self.gradients.combine_elementwise(rule)
        self._measure(losses, self._grams.sum(0) if self._grams is not None else None)
        if self.ended is not None:
            self._leave_out_update(model)
            return
        if self.learning_rate_probe is not None:
            self.learning_rate_probe.begin()
        self.before_step(losses)

    def _leave_out_update(self, model: nn.Module) -> None:
        """Take all gradients away, both sets' too."""
        super()._leave_out_update(model)
        if self.gradients is not None:
            self.gradients.clear()

    @property
    def _noise_floor(self) -> float:
        half = self.args.bf16 or self.args.fp16
        half = half or any(parameter.dtype != torch.float32 for parameter in self.model.parameters())
        return NOISE_FLOOR_HALF if half else NOISE_FLOOR_FLOAT32

    def end_run(self, reason: str) -> None:
        """Let the run end before this step's update; for `gradient_weights`, with the same verdict on every rank.

        Args:
            reason: what the user is told; kept in `ended`.
        """
        self.ended = f"step {self.state.global_step + 1}: {reason}"
        warnings.warn(f"The run has ended before {self.ended}", stacklevel=2)
        self.control.should_training_stop = True

    def _choose_weights(self, gram: Tensor | None, losses: Losses) -> Tensor:
        """Let the method choose the weights of both gradients, `[2]`, or `[P, 2]` for each parameter by itself."""
        scaled = getattr(self.accelerator, "scaler", None) is not None
        if scaled and gram is not None and not torch.isfinite(gram).all():
            # The scaler must see what overflowed, to skip this step and lower its scale: a weight of zero would hide
            # it. The method does not choose, so its state stays as it is.
            self._grams, self._weights = None, (1.0, 1.0)
        else:
            grams = self._grams
            if self.retain_objective.zero_before_unlearning and grams is not None:
                grams = without_noise(grams, self._noise_floor)
            if not self.needs_gram:
                grams = None
            self._weights = self.gradient_weights(grams.sum(0) if grams is not None else None, losses)
            if grams is not None:
                by_parameter = self.parameter_weights(grams, losses, self._weights)
                if by_parameter is not None:
                    return by_parameter
        return torch.tensor(self._weights, dtype=torch.float64)

    def _optimizer_stepped(self) -> None:
        """Parameters are new, gradients still alive: measure again and let the method update its state."""
        if self._update_was_dropped or self.ended is not None:
            return
        if not self.divergence_guard.after_update():
            return
        assert self._losses is not None
        again = {name: self.loss_again(name) for name in self._measured_again}
        if self.learning_rate_probe is not None:
            self.learning_rate_probe.finish(self._losses.retain, again.get("retain", math.nan))
        again = {name: again[name] for name in self.remeasured}
        step = self.state.global_step + 1
        if self.retain_level is not None:
            self.retain_level.follow(step, again.get("retain", self._losses.retain))
        self.after_step(self._losses, Losses(again.get("forget", math.nan), again.get("retain", math.nan)))
        if self.retain_budget is not None:
            assert self.retain_level is not None
            self.retain_budget.follow(step, self.retain_level)

    @torch.no_grad()
    def loss_again(self, name: str) -> float:
        """The loss `name` (`"forget"` or `"retain"`) of this step's batches with the parameters as they are now.

        Same micro-batches, same code path, same dropout as in the step (for what it measures again); averaged over
        ranks, so that every rank holds the same number.
        """
        assert self.window is not None
        model, window = self._model_for_evaluation(), self.window
        total = torch.zeros((), device=self.args.device)
        states = window.random_states.get(name)
        for index, batch in enumerate(window.batches):
            context = replay(states[index], self.args.device) if states else contextlib.nullcontext()
            with context, self.compute_loss_context_manager():
                inputs: Any = self._prepare_inputs(self._batches_of(name, batch))
                total += self._objective_loss(model, name, inputs)
        reshard(model)
        return float(self.accelerator.reduce(total, "mean"))

    def _measure(self, losses: Losses, gram: Tensor | None) -> None:
        values = {"forget_loss": losses.forget, "retain_loss": losses.retain}
        values |= {"forget_weight": self._weights[0], "retain_weight": self._weights[1]}
        if gram is not None:
            values |= norms_and_cosine(gram)
        if self.retain_level is not None:
            values |= self.retain_level.measurements()
        for name, value in (values | self.measurements()).items():
            self._measurements.setdefault(name, []).append(value)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of losses, weights, norms and the method's own numbers since the last line."""
        if "loss" in logs and self._measurements:
            logs.update({name: sum(values) / len(values) for name, values in self._measurements.items()})
            self._measurements.clear()
            if self._geometry is not None and self._grams is not None:
                self._geometry.write(self.state.global_step, self._grams, self._weights)
        super().log(logs, start_time)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """AutoLR is the scheduler, so that nothing else sets the rate and its state is saved and resumed."""
        if not self.args.autolr:
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            self.lr_scheduler: Any = AutomaticLearningRate(
                optimizer or cast(torch.optim.Optimizer, self.optimizer), self.args.autolr_min, self.args.autolr_max
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # ---- before, after and between runs ------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Unlearn.

        Args:
            resume_from_checkpoint: a checkpoint folder, or `True` for the newest complete one in the output folder.
            *args: passed on to `Trainer.train`.
            **kwargs: passed on to `Trainer.train`.

        Raises:
            ValueError: when there is no checkpoint to resume from.

        Called again without a checkpoint, it goes on from the weights as they are, with a method that starts anew.
        """
        resume_from_checkpoint = self.checkpoint_to_resume(resume_from_checkpoint)
        self.divergence = self.ended = None
        self._resumes = bool(resume_from_checkpoint)
        if self._first_state is None:
            self._first_state = copy.deepcopy(self.method_state())
        elif not resume_from_checkpoint:
            self.load_method_state(copy.deepcopy(self._first_state))
        if resume_from_checkpoint:
            # mapped, so that a large state is not read once for every rank
            state = torch.load(Path(resume_from_checkpoint) / METHOD_STATE_FILE, weights_only=True, mmap=True)
            self.load_method_state(state)
            if self.retain_level is not None and "retain_level" in state:
                self.retain_level.load_state_dict(state["retain_level"])
            if self._budget_level is not None and "budget_level" in state:
                self._budget_level.load_state_dict(state["budget_level"])
            if self.stop_rule is not None:
                self.stop_rule.load_state_dict(state.get("stop_rule"))
            self.reference_columns.load_state_dict(state.get("reference_nll", {}))
        if not shards(self.accelerator):
            self.reference_columns.measure(self.model)
            if isinstance(self.reference, StoredReference):
                self.reference.measure(self.model)
            self.run_verdict.begin(self.model, self._resumes)
        with self.run_verdict.timed("training"):
            return super().train(resume_from_checkpoint, *args, **kwargs)

    def verdict(self) -> Verdict:
        """What the run did: forgotten, kept, leaking rows; measured now against what was measured before training.

        All ranks take part. `verdict.json` in the output folder has the same.

        Raises:
            ValueError: when nothing was measured before, or the weights give no finite likelihoods.
        """
        return self.run_verdict.finish(self._model_for_evaluation())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model or adapter, with a card; inside a checkpoint also the state of the method."""
        if _internal_call and self.retain_budget is not None:
            self.retain_budget.settle()
        super().save_model(output_dir, _internal_call)
        if _internal_call and output_dir is not None:
            state = self.method_state()  # every rank takes part where the state is sharded
            if self.retain_level is not None:
                state = state | {"retain_level": self.retain_level.state_dict()}
            if self._budget_level is not None:
                state = state | {"budget_level": self._budget_level.state_dict()}
            if self.stop_rule is not None:
                state = state | {"stop_rule": self.stop_rule.state_dict()}
            state = state | {"reference_nll": self.reference_columns.state_dict()}
            if self.args.should_save:
                with whole_file(Path(output_dir) / METHOD_STATE_FILE) as partial:
                    torch.save(state, partial)
        elif self.args.should_save:
            write_card(self, Path(output_dir or str(self.args.output_dir)), self.run_verdict.last)


class _UnlearningCallback(TrainerCallback):
    """Ties the trainer to the events of the loop."""

    def __init__(self, trainer: UnlearningTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # A resumed state carries the fraction of the epoch already done.
        self.trainer.train_dataset.set_epoch(int(state.epoch or 0))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer.stop_rule is not None:
            self.trainer.stop_rule.follow()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer.retain_budget is not None:
            self.trainer.retain_budget.finish()
        if self.trainer.stop_rule is not None:
            self.trainer.stop_rule.finish()
