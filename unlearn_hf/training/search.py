"""`Trainer.hyperparameter_search`, with a trainer of its own for every trial."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from torch import nn
from transformers import Trainer, set_seed

from unlearn_hf.common.extras import require
from unlearn_hf.common.registry import nearest

_BACKEND = "optuna"


class SearchableTrainer(Trainer):
    """A `Trainer` that remembers what it was made of, where it was made with `model_init`.

    transformers gives one trainer a fresh model for every trial. What ours know of the model before unlearning (its
    distributions, the column `reference_nll`, retain level, stop rule, verdict) and what they checked would stay that
    of the trial before.
    """

    _made_of: tuple[tuple[Any, ...], dict[str, Any]] | None

    def __new__(cls, *positional: Any, **named: Any) -> Self:
        """Remember the arguments."""
        made = super().__new__(cls)
        made._made_of = (positional, named) if named.get("model_init") is not None else None
        return made

    @staticmethod
    def given_or_fresh(model: Any, seed: int, trainer_arguments: dict[str, Any]) -> Any:
        """The model, which `model_init` makes where that is given in its place.

        Args:
            model: what was given, or `None`.
            seed: set before `model_init` is called, as transformers does.
            trainer_arguments: further arguments of the trainer; `model_init` is taken out of them.

        Raises:
            ValueError: unless one of both is given, or for an optimizer beside `model_init`.
        """
        model_init = trainer_arguments.pop("model_init", None)
        if model_init is None:
            if model is None:
                raise ValueError("model: it is missing; give a hub id, a folder or a model, or model_init.")
            return model
        if model is not None:
            raise ValueError("model_init: it makes the model, so that model has to be None.")
        if given := {"optimizers", "optimizer_cls_and_kwargs"} & trainer_arguments.keys():
            raise ValueError(
                f"{given.pop()}: it would belong to another model than the one model_init makes; leave it out."
            )
        set_seed(seed)
        return _called(model_init, None)

    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], dict[str, Any]] | None = None,
        compute_objective: Callable[[dict[str, float]], Any] | None = None,
        n_trials: int = 20,
        direction: str | list[str] = "minimize",
        backend: Any = None,
        hp_name: Callable[[Any], str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Search options with Optuna, as `transformers.Trainer.hyperparameter_search` does.

        Every trial has a trainer that is made anew, with its options checked, and a run folder `run-N` (or `hp_name`)
        in `output_dir`. This trainer stays as it is.

        Args:
            hp_space: gives the options of a trial; they have to be fields of the configuration.
            compute_objective: from what `evaluate` returns to a number, or to several.
            n_trials: how many.
            direction: `minimize` or `maximize`, a list of them for several objectives.
            backend: `optuna`.
            hp_name: the run folder of a trial.
            **kwargs: what `optuna.create_study` takes, and `timeout`, `catch`, `gc_after_trial`.

        Raises:
            ValueError: for a trainer without `model_init`, another backend, several trials at a time (`n_jobs`), or an
                option that does not exist.
            ImportError: without Optuna.
        """
        if self._made_of is None:
            raise ValueError("model_init: it is missing; make the trainer with model=None and a function model_init.")
        if backend not in (None, _BACKEND):
            raise ValueError(f"backend: {backend!r} is not supported; use {_BACKEND!r}.")
        if (jobs := kwargs.pop("n_jobs", 1)) != 1:
            raise ValueError(f"n_jobs: {jobs} trials at once would share a device; start processes on one storage.")
        require("optuna", "sweep", "hyperparameter_search")
        trials: Any = _Trials(self, *self._made_of)
        return Trainer.hyperparameter_search(
            trials, hp_space, compute_objective, n_trials, direction, _BACKEND, hp_name, **kwargs
        )


class _Trials:
    """Stands for the trainer in a search: everything is that of the trainer of the trial.

    Args:
        first: the trainer whose search it is.
        positional: what it was made of.
        named: likewise, by name.
    """

    hp_space: Callable[[Any], dict[str, Any]]
    hp_name: Callable[[Any], str] | None
    compute_objective: Callable[[dict[str, float]], Any]
    hp_search_backend: Any
    objective: Any = None

    def __init__(self, first: SearchableTrainer, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.first, self.positional, self.named = first, positional, named
        self.model_init = named["model_init"]
        self.trainer: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer if self.trainer is not None else self.first, name)

    def train(self, resume_from_checkpoint: Any = None, trial: Any = None) -> Any:
        """Make the trainer of a trial, and train."""
        self.trainer = None  # its memory is free before the next one is made
        self.trainer = self._made_for(trial)
        found = self.trainer.train(resume_from_checkpoint=resume_from_checkpoint, trial=trial)
        self.objective = getattr(self.trainer, "objective", None)
        return found

    def _made_for(self, trial: Any) -> Any:
        base: Any = self.first.args
        options = {name: _like(getattr(base, name), value) for name, value in self._options(trial).items()}
        folder = Path(str(base.output_dir)) / (self.hp_name(trial) if self.hp_name else f"run-{trial.number}")
        args = dataclasses.replace(base, **{**options, "output_dir": str(folder)})
        named = {**self.named, "model_init": lambda: _called(self.model_init, trial)}
        positional = list(self.positional)
        if "args" in named:
            named["args"] = args
        else:
            positional[1] = args
        made: Any = type(self.first)(*positional, **named)
        for name in ("hp_space", "compute_objective", "hp_search_backend"):
            setattr(made, name, getattr(self, name))
        made.hp_name = lambda _: str(folder.absolute())  # transformers joins it to output_dir, which it is already
        made.objective = None
        return made

    def _options(self, trial: Any) -> dict[str, Any]:
        options = self.hp_space(trial)
        known = [item.name for item in dataclasses.fields(self.first.args) if item.init]
        for name in options:
            if name not in known:
                raise ValueError(
                    f"hp_space: {name!r} is no option of {type(self.first.args).__name__}{nearest(name, known)}"
                )
        return options


def _like(old: Any, value: Any) -> Any:
    """A value in the type of the one it replaces, as transformers has it."""
    return value if old is None or value is None else type(old)(value)


def _called(model_init: Callable[..., nn.Module], trial: Any) -> nn.Module:
    return model_init(trial) if inspect.signature(model_init).parameters else model_init()
