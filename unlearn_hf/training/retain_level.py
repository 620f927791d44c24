"""How far the retain loss has risen since before unlearning, and the budget that ends a run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from unlearn_hf.data.labels import label_counts
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.likelihood.one_pass import evaluating
from unlearn_hf.training.followed_run import FollowedRun
from unlearn_hf.training.weights_copy import WeightsCopy


class _Trainer(FollowedRun, Protocol):
    """What is followed: a trainer with forget and retain rows."""

    @property
    def needs_retain_reference(self) -> bool: ...


class RetainProbe:
    """A fixed sample of rows whose loss or probability is measured again and again.

    Dropout is off, the rows are shared out over the ranks, and the same parameters give the same number.

    Args:
        dataset: encoded rows.
        count: rows to draw, without replacement; all of them when there are not as many.
        seed: seeds the draw.
    """

    def __init__(self, dataset: Any, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(dataset), generator=generator)[:count].tolist()
        encoded = [{name: dataset[row][name] for name in ("input_ids", "labels")} for row in drawn]
        # Rows of like length side by side, so that padding stays small.
        self.rows = sorted(encoded, key=lambda row: -len(row["input_ids"]))

    def loss(self, trainer: _Trainer) -> float:
        """NLL per answer token over all rows, in nats; the same number on every rank."""
        return self._ratio(trainer, lambda nll, tokens: (nll, tokens))

    def probability(self, trainer: _Trainer) -> float:
        """Probability of an answer per token, its mean over rows; the same number on every rank."""
        return self._ratio(trainer, lambda nll, tokens: ((-nll / tokens).exp(), torch.ones_like(nll)))

    def _ratio(self, trainer: _Trainer, parts: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> float:
        """Sum over rows of the first of `parts` (of NLLs and tokens, `[B]` each) over that of the second."""
        accelerator, size = trainer.accelerator, trainer.args.per_device_eval_batch_size
        mine = self.rows[accelerator.process_index :: accelerator.num_processes]
        # A sharded model needs as many forward passes of every rank: one without rows repeats some and drops them.
        longest = math.ceil(len(self.rows) / accelerator.num_processes)
        model = trainer._model_for_evaluation()
        sums = torch.zeros(2, dtype=torch.float64)
        with evaluating(model), trainer.compute_loss_context_manager():
            for start in range(0, longest, size):
                chosen = mine[start : start + size]
                batch: Any = trainer._prepare_inputs(trainer.data_collator(chosen or self.rows[:1]))
                nll = answer_likelihood(model, batch).nll
                if chosen:
                    found = parts(nll.cpu().double(), label_counts(batch["labels"]).cpu().double())
                    sums += torch.stack([each.sum() for each in found])
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.to(accelerator.device), "sum")
        above, below = sums.tolist()
        return above / max(below, 1.0)


def retain_loss_before_unlearning(trainer: _Trainer) -> float:
    """Retain loss of this step's rows under the model before unlearning, in nats per token.

    Zero for the distance of a model from itself. NLLs come from the column that `needs_retain_reference` adds.
    """
    if not trainer.needs_retain_reference:
        return 0.0
    total = torch.stack([batch["retain"]["reference_nll"].sum() for batch in trainer.window.batches]).sum()
    share = total.to(trainer.args.device) / trainer.window.totals.of("tokens", "retain")
    return float(trainer.accelerator.reduce(share, "mean"))


class RetainLevel:
    """The retain loss compared with that of the model before unlearning.

    `probe`: NLL per answer token of a fixed sample of rows, measured every `level_probe_interval` steps (more often at
    the beginning of a run with a budget); the base is its value before the first step. `batch`: the retain loss of the
    step's own rows after the step; the base is the loss of the same rows before unlearning. `ema`: exponential moving
    averages of both. `batch` and `ema` cost less, but judge rows that this very step has trained on.

    Attributes:
        base: loss before unlearning, in nats (0 for the KL divergence from that model); `None` before it is known.
        current: loss now, in nats; `None` before the first measurement.
        step: optimizer steps behind `current`.
    """

    def __init__(self, trainer: _Trainer, estimate: str | None = None) -> None:
        self.trainer = trainer
        self.estimate = estimate or trainer.args.level_estimate
        self.base: float | None = None
        self.current: float | None = None
        self.step: int | None = None
        # Decayed sums of loss, base and weight: dividing by the last makes means of what was seen.
        self._averages = [0.0, 0.0, 0.0]
        self._resumed = False
        self._probe: RetainProbe | None = None
        if self.estimate == "probe":
            pairs = trainer.train_dataset
            self._probe = RetainProbe(pairs.retain, trainer.args.level_probe_rows, pairs.seed)

    @property
    def rise(self) -> float | None:
        """`current / base - 1`: 0.02 means 2 % above the loss before unlearning; `None` while there is no base."""
        return self.current / self.base - 1 if self.base and self.current is not None else None

    def begin(self) -> None:
        """Measure the level, unless a resumed run brought it along; the first one is the base."""
        resumed, self._resumed = self._resumed, False
        if resumed:
            return
        self._averages = [0.0, 0.0, 0.0]
        if self._probe is not None:
            self.measure(self.trainer.state.global_step)
            self.base = self.current if self.base is None else self.base

    def measure(self, step: int) -> None:
        """Measure the probe now; the other estimates are as new as the last step already."""
        if self._probe is not None:
            self.current, self.step = self._probe.loss(self.trainer), step

    def follow(self, step: int, loss: float) -> None:
        """Take up the outcome of optimizer step number `step`, whose rows have retain loss `loss` now."""
        if self._probe is not None:
            if self._due(step):
                self.measure(step)
            return
        if not math.isfinite(loss):  # a loss that is no number is above every level, and no part of an average
            self.current, self.step = math.nan, step
            return
        decay = self.trainer.args.level_ema_decay if self.estimate == "ema" else 0.0
        seen = (loss, retain_loss_before_unlearning(self.trainer), 1.0)
        self._averages = [decay * old + (1 - decay) * new for old, new in zip(self._averages, seen, strict=True)]
        self.current, self.base = (average / self._averages[2] for average in self._averages[:2])
        self.step = step

    def _due(self, step: int) -> bool:
        """Whether the probe is due: every `level_probe_interval` steps; under a budget first after 1, 2, 4, ... steps.

        At a high rate the first probe of an interval may be beyond the budget already, with nothing kept before it.
        """
        args = self.trainer.args
        begins = args.retain_budget is not None and step < args.level_probe_interval and step & (step - 1) == 0
        return begins or step % args.level_probe_interval == 0

    def measurements(self) -> dict[str, float]:
        """The rise as last measured, for the log."""
        return {} if self.rise is None else {"retain_rise": self.rise}

    def state_dict(self) -> dict[str, Any]:
        """Base, current value and averages."""
        return {"base": self.base, "current": self.current, "step": self.step, "averages": list(self._averages)}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Take up a saved state exactly; averages begin anew where the run that is resumed had none (`None`).

        Raises:
            ValueError: when that run has not measured the probe before unlearning.
        """
        if state is None:
            if self._probe is None:
                return
            budget = self.trainer.args.retain_budget
            option = f"retain_budget: {budget}" if budget is not None else "level_estimate: 'probe'"
            raise ValueError(
                f"{option} needs the retain loss before unlearning, and the run that is resumed was begun without a "
                "probe of it; leave it out, or begin afresh."
            )
        self.base, self.current, self.step = state["base"], state["current"], state["step"]
        self._averages = list(state["averages"])
        self._resumed = True


class RetainBudget:
    """Ends a run whose retain loss has risen by more than `retain_budget`, and goes back to weights within it.

    Whenever the probe is measured and within budget, the trained parameters are copied to the CPU; when it is above,
    that copy is put back and the run stops. A run also measures at its end and before every checkpoint, so neither a
    checkpoint nor the outcome holds weights that were not measured to be within budget (as far as a probe says). The
    estimates `batch` and `ema`, which judge rows that the step has trained on, only say when to measure early. Not
    put back: the optimizer's state, and parameters that DeepSpeed partitions (those stay as they were measured).

    Args:
        trainer: the run.
        level: what decides, measured by a probe.
        budget: the share by which it may rise.

    Attributes:
        exceeded: what was measured and what is kept; `None` as long as the budget holds.
    """

    def __init__(self, trainer: _Trainer, level: RetainLevel, budget: float) -> None:
        self.trainer = trainer
        self.level = level
        self.budget = budget
        self.exceeded: str | None = None
        self._kept = WeightsCopy(trainer.model)
        self._kept_step = 0
        self._kept_rise: float | None = None

    def begin(self) -> None:
        """Keep the weights a run begins with: before unlearning, or those of a checkpoint."""
        self.exceeded = None
        self._keep(self.trainer.state.global_step)

    def _keep(self, step: int) -> None:
        self._kept_step, self._kept_rise = step, self.level.rise
        if not self.trainer.is_deepspeed_enabled:
            self._kept.keep()

    def follow(self, step: int, estimate: RetainLevel) -> None:
        """After optimizer step number `step`: measure where it is due or `estimate` is above the budget, and check."""
        if estimate is not self.level:
            if estimate.step == step and estimate.rise is not None and not estimate.rise <= self.budget:
                self.level.measure(step)
            else:
                self.level.follow(step, math.nan)
        self.check(step)

    def settle(self) -> None:
        """Before weights leave the run: measure them, unless the last step did."""
        step = self.trainer.state.global_step
        if self.exceeded is None and self.level.step != step:
            self.level.measure(step)
            self.check(step)

    def finish(self) -> None:
        """At the end of a run: measure what it leaves behind, and log how a spent budget ended it."""
        self.settle()
        if self.exceeded is not None:
            kept = {"retain_budget_kept_step": float(self._kept_step)}
            if self._kept_rise is not None:
                kept["retain_rise"] = self._kept_rise  # not that of the weights that were given up
            self.trainer.log(kept)

    def check(self, step: int) -> None:
        """If the weights after `step` were measured, keep them or go back to the kept ones and stop."""
        rise = self.level.rise
        if rise is None or self.level.step != step:
            return
        if rise <= self.budget:
            self._keep(step)
            return
        outcome = f"the weights after step {self._kept_step} are kept"
        if self._kept_rise is not None:
            outcome += f" ({100 * self._kept_rise:+.4g} %)"
        if self.trainer.is_deepspeed_enabled:
            outcome = "the weights after this step are kept (DeepSpeed holds them; lower learning_rate)"
        self._kept.restore()
        trainer = self.trainer
        self.exceeded = (
            f"step {step}: the retain loss is {100 * rise:.4g} % above its value before unlearning, beyond "
            f"retain_budget {self.budget:g} ({100 * self.budget:.4g} %); the run stops and {outcome}."
        )
        if trainer.is_world_process_zero():
            warnings.warn(f"Retain budget spent at {self.exceeded}", stacklevel=2)
        trainer.control.should_training_stop = True
