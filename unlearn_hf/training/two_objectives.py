"""One optimizer step of two objectives: both backward passes, the weights, the update, and what follows it."""

from __future__ import annotations

import contextlib
import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unlearn_hf.gradients.buffers import GradientBuffers
from unlearn_hf.gradients.geometry import GradientGeometryFile, norms_and_cosine
from unlearn_hf.gradients.weightings import NOISE_FLOOR_FLOAT32, NOISE_FLOOR_HALF, without_noise
from unlearn_hf.models.sharding import reshard
from unlearn_hf.objectives.base import Needs, Objective
from unlearn_hf.reference.model_before import ReferenceModel
from unlearn_hf.reference.stored import StoredReference
from unlearn_hf.training.automatic_learning_rate import LearningRateProbe
from unlearn_hf.training.contributions import batch_names, contributions
from unlearn_hf.training.divergence import total_norm
from unlearn_hf.training.finetuning import FinetuningTrainer
from unlearn_hf.training.method_hooks import MethodHooks
from unlearn_hf.training.optimizer_step import Losses, random_state, replay
from unlearn_hf.training.retain_level import RetainBudget, RetainLevel
from unlearn_hf.training.unlearning_config import UnlearningConfig


class TwoObjectivesTrainer(MethodHooks, FinetuningTrainer):
    """The part of `UnlearningTrainer` that runs in every step; that class sets these attributes.

    Attributes:
        objectives: what is minimised, by loss (`"forget"`, `"retain"`); `needs` is what each needs of its rows, and
            `parameters` its parameters.
        gradients: both gradients, where they are kept apart.
        geometry: the file of their norms and cosines by layer, where it is wanted.
        reference: the model before unlearning, where an objective compares with it in every step.
        learning_rate_probe: measures losses again for AutoLR, where that is on.
        retain_level: the rise of the retain loss, where something follows it.
        retain_budget: what ends the run when that rise is too high.
        ended: why the method has ended the run by itself, or `None`.
    """

    args: UnlearningConfig
    objectives: dict[str, Objective]
    needs: dict[str, Needs]
    parameters: dict[str, Any]
    gradients: GradientBuffers | None = None
    geometry: GradientGeometryFile | None = None
    reference: ReferenceModel | StoredReference | None = None
    learning_rate_probe: LearningRateProbe | None = None
    retain_level: RetainLevel | None = None
    retain_budget: RetainBudget | None = None
    ended: str | None = None
    repeats_dropout: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._grams: Tensor | None = None
        self._weights: tuple[float, float] = (1.0, 1.0)
        self._losses: Losses | None = None
        self._measurements: dict[str, list[float]] = {}

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Backward passes of both objectives, one after the other, so that one graph is alive at a time."""
        window = self.window
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
                if name in self._measured_again and self.repeats_dropout:
                    self.window.random_states.setdefault(name, []).append(random_state(self.args.device))
                part = self.objective_loss(model, name, inputs)
                self.window.record(name, part)
                loss = loss + weight * part
        return (loss, {}) if return_outputs else loss

    def objective_loss(self, model: nn.Module, name: str, batches: dict[str, dict[str, Tensor]]) -> Tensor:
        """Contributions of one micro-batch to the loss `name`, over the total of the whole step."""
        objective, names = self.objectives[name], batch_names(name, self.needs[name])
        found = contributions(
            objective,
            self.parameters[name],
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
                half = self.args.bf16 or self.args.fp16
                half = half or any(parameter.dtype != torch.float32 for parameter in self.model.parameters())
                grams = without_noise(grams, NOISE_FLOOR_HALF if half else NOISE_FLOOR_FLOAT32)
            if not self.needs_gram:
                grams = None
            self._weights = self.gradient_weights(grams.sum(0) if grams is not None else None, losses)
            if grams is not None and (found := self.parameter_weights(grams, losses, self._weights)) is not None:
                return found
        return torch.tensor(self._weights, dtype=torch.float64)

    def optimizer_stepped(self) -> None:
        """Parameters are new, gradients still alive: measure again and let the method update its state."""
        if self.update_was_dropped or self.ended is not None or not self.divergence_guard.after_update():
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
        model, window = self._model_for_evaluation(), self.window
        total = torch.zeros((), device=self.args.device)
        states = window.random_states.get(name)
        for index, batch in enumerate(window.batches):
            context = replay(states[index], self.args.device) if states else contextlib.nullcontext()
            with context, self.compute_loss_context_manager():
                inputs: Any = self._prepare_inputs(self._batches_of(name, batch))
                total += self.objective_loss(model, name, inputs)
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

    @property
    def current_losses(self) -> dict[str, float]:
        """Both losses of the last step."""
        return {} if self._losses is None else self._losses._asdict()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of losses, weights, norms and the method's own numbers since the last line."""
        if "loss" in logs and self._measurements:
            logs.update({name: sum(values) / len(values) for name, values in self._measurements.items()})
            self._measurements.clear()
            if self.geometry is not None and self._grams is not None:
                self.geometry.write(self.state.global_step, self._grams, self._weights)
        # Transformers takes any log for the one that is due; what a stop rule writes must not take its place.
        due = self.control.should_log and "loss" not in logs
        super().log(logs, start_time)
        self.control.should_log = due
