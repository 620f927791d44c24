"""Ends a run when it is done, by a condition on a small sample of rows, or goes back to the best trade-off."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from unlearn_hf.common.files import drop_lines_beyond
from unlearn_hf.models.sharding import shards
from unlearn_hf.training.retain_level import RetainProbe
from unlearn_hf.training.stop_condition import StopCondition
from unlearn_hf.training.stop_looks import LOOKS_FILE, add_look
from unlearn_hf.training.weights_copy import WeightsCopy
from unlearn_hf.training.weights_path import WeightsPath

_RETAIN_WEIGHT = 2.0
"""Forgotten share that a lost share of retain probability is worth: 5 % lost count as much as 10 % forgotten."""


class StopRule:
    """Measures probabilities every few steps, stops when the condition holds, and keeps the best weights otherwise.

    The best trade-off has the largest `forgotten - 2 lost`, where `forgotten = 1 - forget_prob / initial` and `lost =
    max(0, 1 - retain_prob / initial)`. A copy of its trained parameters rests on the CPU, is saved with checkpoints,
    and is put back at the end of a run whose condition never held. Sharded ranks keep theirs in memory alone: a
    resumed run looks for the best from there on. Under DeepSpeed the last weights are kept.

    With `stop_on_path`, as soon as enough is forgotten (the condition would hold if nothing else had been lost), what
    counts is not the model of now but the nearest point to the weights before unlearning at which that is still so. At
    the end of a run that is looked at even if the condition asks for more steps or epochs.
    A resumed sharded run, and one under DeepSpeed, looks at the model of now.

    Args:
        trainer: the run.
        condition: when to stop.
        retain: encoded rows to keep, held back from training where that is possible.

    Attributes:
        outcome: how the run ended; `None` before.
        held: whether the condition held, which ended the run.
    """

    def __init__(self, trainer: Any, condition: StopCondition, retain: Any) -> None:
        args = trainer.args
        self.trainer = trainer
        self.condition = condition
        self.probes = {
            "forget_prob": RetainProbe(trainer.train_dataset.forget, args.stop_rows, seed=0),
            "retain_prob": RetainProbe(retain, args.stop_rows, seed=0),
        }
        self.outcome: str | None = None
        self.held = False
        self.initial: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._measured_step = -1
        self._weights = WeightsCopy(trainer.model)
        on_path = args.stop_on_path and not trainer.is_deepspeed_enabled
        self._path: WeightsPath | None = WeightsPath(trainer.model) if on_path else None
        self._resumed: dict[str, Any] | None = None

    def begin(self) -> None:
        """Measure the model before unlearning, unless a resumed run brought that along."""
        self.outcome, self.held, self._best, self._measured_step = None, False, {}, -1
        saved, self._resumed = self._resumed, None
        if self.trainer.is_world_process_zero():
            drop_lines_beyond(self._folder / LOOKS_FILE, self.trainer.state.global_step)
        if saved is None:
            self.initial = self.initial or self._measure()
            if self._path is not None:
                self._path.begin()
            return
        self.initial = saved["initial"]
        if saved.get("before") is None:
            self._path = None
        elif self._path is not None:
            self._path.begin(saved["before"])
        if saved["weights"] is not None or self._is_here(saved["best"]):
            self._best = saved["best"]
            self._weights.keep(saved["weights"])

    @property
    def _folder(self) -> Path:
        return Path(str(self.trainer.args.output_dir))

    def _measure(self) -> dict[str, float]:
        return {name: probe.probability(self.trainer) for name, probe in self.probes.items()}

    def follow(self) -> None:
        """After a step: every few of them, measure, keep the best weights, and stop if the condition holds."""
        trainer = self.trainer
        step = trainer.state.global_step
        if trainer.divergence is not None or self.outcome is not None or step % trainer.args.stop_interval:
            return
        self._look(step)

    def _look(self, step: int) -> None:
        trainer = self.trainer
        self._measured_step = step
        progress = {"step": step, "epoch": trainer.state.epoch or 0.0}
        # More steps than these will not come.
        length = dict.fromkeys(progress, math.inf) if step >= trainer.state.max_steps else progress
        values, share = self._measure(), 1.0
        if self._path is not None and self._enough(values["forget_prob"], length):
            probe = self.probes["forget_prob"]
            share = self._path.nearest(lambda: self._enough(probe.probability(trainer), length))
            values = self._measure()
        trainer.log({f"stop_{name}": value for name, value in values.items()})
        score = self._score(values)
        if trainer.is_world_process_zero():
            add_look(self._folder, step, score, values)
        if score > self._best.get("score", -math.inf) and not trainer.is_deepspeed_enabled:
            self._best = {"step": step, "score": score, "share": share, **values}
            self._weights.keep()
        self.held = self.condition.holds({**values, **progress}, self.initial)
        if self.held:
            self.outcome = f"step {step}{_way(share)}: {_words(values)}, so that {self.condition.text}"
            trainer.control.should_training_stop = True
        elif self._path is not None and share < 1:
            self._path.back()

    def _enough(self, forget_prob: float, progress: dict[str, float]) -> bool:
        """Whether the condition would hold if nothing else were lost."""
        return self.condition.holds({**self.initial, **progress, "forget_prob": forget_prob}, self.initial)

    def _is_here(self, best: dict[str, float]) -> bool:
        """Whether the best weights are those of now."""
        return best.get("step") == self.trainer.state.global_step and best.get("share", 1.0) == 1.0

    def _score(self, values: dict[str, float]) -> float:
        forgotten, kept = (1 - values[name] / self.initial[name] for name in ("forget_prob", "retain_prob"))
        return forgotten - _RETAIN_WEIGHT * max(0.0, kept)

    def finish(self) -> None:
        """At the end of a run whose condition never held: go back to the best trade-off."""
        trainer = self.trainer
        budget = trainer.retain_budget
        if self.outcome is not None or trainer.divergence is not None or (budget is not None and budget.exceeded):
            return
        step = trainer.state.global_step
        if self._measured_step != step:
            self._look(step)
        if self.outcome is not None:
            return
        kept = self._best or {"step": step}
        if not self._is_here(kept):
            self._weights.restore()
        found = _words(kept) if "forget_prob" in kept else "not measured"
        self.outcome = (
            f"step {step}: {self.condition.text} never held; the weights after step "
            f"{kept['step']:.0f}{_way(kept.get('share', 1.0))} are kept, the best trade-off ({found})"
        )

    def state_dict(self) -> dict[str, Any]:
        """Values before unlearning, and the best trade-off with its weights unless they are those of now."""
        whole = not shards(self.trainer.accelerator)
        keeps = bool(self._best) and whole and not self._is_here(self._best)
        return {
            "initial": self.initial,
            "best": self._best,
            "weights": self._weights.tensors() if keeps else None,
            "before": self._path.tensors() if self._path is not None and whole else None,
        }

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Take up a saved state; `begin` puts it to use.

        Raises:
            ValueError: when the run that is resumed had no stop condition, or did not keep the weights before it.
        """
        if state is None:
            raise ValueError(
                f"stop_when: {self.condition.text!r} needs the values before unlearning, and the run that is resumed "
                "was begun without a stop condition; leave it out, or begin afresh."
            )
        if self._path is not None and state.get("before") is None and not shards(self.trainer.accelerator):
            raise ValueError(
                "stop_on_path: True needs the weights before unlearning, and the checkpoint does not hold them; set "
                "it to false, or begin afresh."
            )
        self._resumed = state


def _way(share: float) -> str:
    return "" if share == 1 else f" ({100 * share:.0f} % of the way from before unlearning)"


def _words(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {values[name]:.3g}" for name in ("forget_prob", "retain_prob"))
