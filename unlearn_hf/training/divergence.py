"""What a diverging run must not spoil: updates are checked before they are applied, weights before they are kept."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.likelihood.one_pass import evaluating
from unlearn_hf.training.followed_run import FollowedRun
from unlearn_hf.training.weights_copy import WeightsCopy, local_values

# Overflowing half-precision losses are normal while a gradient scaler looks for its scale.
OVERFLOW_PATIENCE = 20
# Beyond this rate a single step of any optimizer may carry weights off; so may plain SGD without clipping at any rate.
CAUTIOUS_RATE = 0.01
_BOUNDED_OPTIMIZERS = ("adamw", "adafactor", "lion", "adagrad", "rmsprop", "ademamix", "stable_adamw", "galore_adamw")
_LARGEST = torch.finfo(torch.float32).max


def total_norm(gradients: Iterable[Tensor | None]) -> Tensor:
    """Euclidean norm of all gradients (of this rank's parts where they are sharded), on their device."""
    local = [each.to_local() if isinstance(each, DTensor) else each.detach() for each in gradients if each is not None]
    return nn.utils.get_total_norm(local) if local else torch.zeros(())


def may_overflow(args: Any, custom_optimizer: bool) -> bool:
    """Whether one optimizer step could take weights so far that a copy of those before it must be kept.

    An optimizer that divides each gradient by its size moves a weight by little more than the learning rate. SGD moves
    it by the gradient, which clipping bounds. Of an optimizer of the user's own nothing is known.
    """
    name = str(getattr(args.optim, "value", args.optim)).removeprefix("paged_")
    bounded = name.startswith(_BOUNDED_OPTIMIZERS) or (name.startswith("sgd") and args.max_grad_norm > 0)
    if custom_optimizer or not bounded or args.optim_args or args.adam_epsilon < 1e-12:
        return True
    rate = args.learning_rate
    if getattr(args, "autolr", False):  # fine-tuning has none
        rate = args.autolr_max or math.inf
    return bool(rate > CAUTIOUS_RATE or rate * args.weight_decay > 1)


class DivergenceGuard:
    """Drops updates that are not finite, and goes back where an update has spoilt the weights.

    Losses and the norm of the gradients are looked at before every update, in the one transfer that the losses take
    anyway. Where `may_overflow` says that a single step may spoil the weights, a copy of the trained parameters, as
    they were when their losses were finite last, rests on the CPU; weights are looked at after every step, and the
    likelihoods of the step's rows before a checkpoint is written and at the end. Elsewhere only weights are looked at,
    before they are written.

    Args:
        trainer: the run; with `stop_on_divergence` it stops at the first such update, else it goes on without it.
    """

    def __init__(self, trainer: FollowedRun) -> None:
        self.trainer = trainer
        self.dropped = False
        self._copy: WeightsCopy | None = None
        self._copied_step = 0
        self._in_a_row = 0
        self._checked_step: int | None = None
        self._warned = False

    def begin(self) -> None:
        """Forget the run before."""
        args, trainer = self.trainer.args, self.trainer
        self.dropped, self._in_a_row, self._checked_step, self._warned = False, 0, None, False
        self._copy = None
        if may_overflow(args, trainer.has_own_optimizer) and not trainer.is_deepspeed_enabled:
            self._copy = WeightsCopy(trainer.model)

    def allows(self, losses: Mapping[str, float], norm: float, gram: Tensor | None = None) -> bool:
        """Whether the update of this step may be applied; otherwise its gradients are to be dropped.

        Args:
            losses: those of the whole step that were measured, by name.
            norm: norm of the gradients, or a bound on it; without a unit under a gradient scaler.
            gram: their Gram matrix, for the message.
        """
        self.dropped = False
        scaled = getattr(self.trainer.accelerator, "scaler", None) is not None
        finite_losses = all(map(math.isfinite, losses.values()))
        finite = finite_losses and norm <= _LARGEST and (gram is None or bool(torch.isfinite(gram).all()))
        self._in_a_row = 0 if finite else self._in_a_row + 1
        if finite:
            if self._copy is not None:
                self._copy.keep()
                self._copied_step = self.trainer.state.global_step
            return True
        if scaled and self._in_a_row < OVERFLOW_PATIENCE:
            return True  # which the scaler will skip
        what = ", ".join(f"{name} loss {value:g}" for name, value in losses.items())
        what += (
            f", squared gradient norms {gram[0, 0]:g} and {gram[1, 1]:g}"
            if gram is not None
            else f", gradient norm {norm:g}"
        )
        outcome = "the update was not applied"
        if self.trainer.is_deepspeed_enabled:
            outcome = "DeepSpeed has applied the update already, so go back to a checkpoint before it"
        else:
            outcome += f", and {self._kept() if finite_losses else self._go_back(unless_whole=True)}"
        self._report(what, outcome)
        self.dropped = True
        return False

    def allows_weights(self, weights: Tensor, norm: float) -> bool:
        """Whether gradients of this norm stay finite under the weights that a method has chosen for them.

        Args:
            weights: `[2]` or `[P, 2]`.
            norm: norm of both gradients together.
        """
        largest = float(weights.abs().max())
        self.dropped = not largest * max(norm, 1.0) <= _LARGEST
        if self.dropped:
            outcome = f"the update was not applied, and {self._kept()}"
            self._report(f"a gradient of norm {norm:g} has got the weight {largest:g}", outcome)
        return not self.dropped

    def after_update(self) -> bool:
        """Whether the weights are finite after the update; otherwise those before it are put back."""
        if self._copy is None or self._weights_are_finite():
            return True
        self._report("the update makes weights that are not finite", f"it was taken back, and {self._go_back()}")
        self.dropped = True
        return False

    def before_leaving(self) -> None:
        """Look at weights that are about to be written or left behind; never write those of a run that diverged."""
        trainer = self.trainer
        step = trainer.state.global_step
        leaving = trainer.control.should_save or trainer.control.should_training_stop
        if leaving and trainer.divergence is None and not self.dropped and self._checked_step != step:
            self._checked_step = step
            problem = None
            if not self._weights_are_finite():
                problem = "weights are not finite"
            elif self._copy is not None and not self._likelihoods_are_finite():
                problem = "after the update the likelihoods of this step's rows are not finite"
            if problem is not None:
                self._report(problem, self._go_back(), step)
        if trainer.divergence is not None:
            trainer.control.should_save = trainer.control.should_evaluate = False

    def _weights_are_finite(self) -> bool:
        trained = [local_values(each) for each in self.trainer.model.parameters() if each.requires_grad]
        # The largest, not the Euclidean norm: squares overflow long before weights do.
        largest = nn.utils.get_total_norm([values for values in trained if values.numel()], math.inf)
        return math.isfinite(float(self.trainer.accelerator.reduce(largest.to(self.trainer.args.device), "mean")))

    @torch.no_grad()
    def _likelihoods_are_finite(self) -> bool:
        """Whether the model, dropout off, still gives every row of this step a likelihood."""
        trainer = self.trainer
        model = trainer._model_for_evaluation()
        total = torch.zeros((), device=trainer.args.device)
        with evaluating(model), trainer.compute_loss_context_manager():
            for batch in trainer.window.batches:
                inputs = trainer._prepare_inputs(dict(batch))
                for rows in [inputs] if "labels" in inputs else inputs.values():
                    total += answer_likelihood(model, rows, packed=bool(trainer.packed)).nll.sum()
        return math.isfinite(float(trainer.accelerator.reduce(total, "mean")))

    def _go_back(self, unless_whole: bool = False) -> str:
        """Put the weights back whose losses were finite last; says what the run holds now.

        Args:
            unless_whole: leave weights that still give likelihoods: an objective has overflowed, not the model.
        """
        step = self.trainer.state.global_step
        if self._copy is None or not self._copy.filled:
            return self._kept()
        if unless_whole and self._likelihoods_are_finite():
            return self._kept()
        self._copy.restore()
        self._set_aside(range(self._copied_step + 1, step + 1))
        return f"the weights after step {self._copied_step} are kept"

    def _kept(self) -> str:
        return f"the weights after step {self.trainer.state.global_step} are kept"

    def _set_aside(self, steps: Iterable[int]) -> None:
        """Checkpoints of weights that have turned out to give no finite loss are kept from a resumed run."""
        trainer = self.trainer
        for step in steps:
            folder = Path(str(trainer.args.output_dir)) / f"checkpoint-{step}"
            if trainer.is_world_process_zero() and folder.is_dir():
                with contextlib.suppress(OSError):  # a rank of another machine may have been faster
                    folder.rename(folder.with_name(f"diverged-checkpoint-{step}"))

    def _report(self, what: str, outcome: str, step: int | None = None) -> None:
        trainer = self.trainer
        step = trainer.state.global_step + 1 if step is None else step
        message = f"step {step}: {what}; {outcome}. {trainer.divergence_advice}"
        if trainer.args.stop_on_divergence:
            trainer.divergence = message
            trainer.control.should_training_stop = True
            warnings.warn(f"The run diverged at {message}", stacklevel=2)
        elif not self._warned:
            self._warned = True
            warnings.warn(f"The run goes on without an update (stop_on_divergence is off) at {message}", stacklevel=2)
