"""`Trainer.hyperparameter_search` with our trainers: every trial begins with everything new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.pruners import ThresholdPruner
from transformers import TrainerCallback

from tests.small_runs import CASES, RETAIN_SEED, forget_rows, parameters, rows
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.methods import METHODS

RATE = {"learning_rate": (0.01, 0.3)}


class Seen(TrainerCallback):
    """Keeps what each trial began with."""

    def __init__(self) -> None:
        self.trials: list[dict[str, Any]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self.trials.append({"args": args, "weights": parameters(kwargs["model"])})


def searching(case: str, folder: Path, seen: Seen, models: list[Any], **overrides: Any) -> Any:
    method, options = CASES[case]

    def model_init(trial: Any) -> Any:
        # another model for each trial, so that what is left over from one shows in the next
        models.append(build_model(seed=0 if trial is None else 1 + trial.number))
        return models[-1]

    config = METHODS[method].config_class(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=4,
        optim="sgd",
        lr_scheduler_type="constant",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        use_cpu=True,
        **(options | overrides),
    )
    return METHODS[method](
        model=None,
        model_init=model_init,
        args=config,
        forget_dataset=forget_rows(8, 1),
        retain_dataset=rows(12, RETAIN_SEED),
        eval_dataset={"retain": rows(4, 3)},
        processing_class=build_tokenizer(),
        callbacks=[seen],
    )


def space(trial: Any) -> dict[str, Any]:
    return {"learning_rate": trial.suggest_float("learning_rate", *RATE["learning_rate"])}


def retain_loss(metrics: dict[str, float]) -> float:
    return metrics["eval_retain_loss"]


# The reference in a column, as a copy of the model, and a level that is measured.
@pytest.mark.parametrize("case", ["npo", "graddiff-kl", "eupmu-level-probe", "task-vector"])
def test_every_trial_begins_anew(case: str, tmp_path: Path) -> None:
    seen, models = Seen(), []
    trainer = searching(case, tmp_path, seen, models)
    made: list[Any] = []
    trainer_class = type(trainer)
    begins = trainer_class.training_begins

    class Watched(trainer_class):  # type: ignore[misc, valid-type]
        def training_begins(self) -> None:
            super().training_begins()
            made.append(self)
            self.reference_now = self.train_dataset.forget["reference_nll"][:] if case == "npo" else None

    assert begins is not Watched.training_begins
    trainer.__class__ = Watched
    best = trainer.hyperparameter_search(
        hp_space=space, compute_objective=retain_loss, n_trials=2, direction="minimize"
    )
    assert set(best.hyperparameters) == {"learning_rate"}
    assert len(made) == len(seen.trials) == 2
    assert trainer not in made
    rates = [each["args"].learning_rate for each in seen.trials]
    assert len(set(rates)) == 2
    assert [Path(each["args"].output_dir).name for each in seen.trials] == ["run-0", "run-1"]
    for number, (each, began) in enumerate(zip(made, seen.trials, strict=True)):
        fresh = build_model(seed=1 + number)
        assert all(torch.equal(began["weights"][name], value) for name, value in parameters(fresh).items())
        batch = each.data_collator([each.train_dataset.forget[row] for row in range(8)])
        with torch.no_grad():
            expected = answer_likelihood(
                fresh, {name: batch[name] for name in ("input_ids", "labels", "attention_mask")}
            )
        if case == "npo":  # its reference is the fresh model of this trial
            assert each.reference_now == pytest.approx(expected.nll.tolist(), rel=1e-4)
        if case == "eupmu-level-probe":
            assert each.retain_level is not made[1 - number].retain_level
        if case == "graddiff-kl":
            assert each.reference is not made[1 - number].reference


def test_what_a_trial_asks_for_is_checked(tmp_path: Path) -> None:
    trainer = searching("npo", tmp_path, Seen(), [])
    with pytest.raises(ValueError, match="learning_rate: -1"):
        trainer.hyperparameter_search(hp_space=lambda trial: {"learning_rate": -1.0}, n_trials=1)
    with pytest.raises(ValueError, match=r"hp_space: 'learning_rat' is no option of NPOConfig; did you mean learning"):
        trainer.hyperparameter_search(hp_space=lambda trial: {"learning_rat": 1.0}, n_trials=1)
    with pytest.raises(ValueError, match="'ray' is not supported"):
        trainer.hyperparameter_search(backend="ray")
    with pytest.raises(ValueError, match="n_jobs: 2 trials at once"):
        trainer.hyperparameter_search(n_jobs=2)


def test_options_of_objectives_and_pruning(tmp_path: Path) -> None:
    seen = Seen()
    trainer = searching("npo", tmp_path, seen, [], eval_strategy="steps", eval_steps=1)
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {"beta": trial.suggest_categorical("beta", [0.2, 0.4])},
        compute_objective=lambda metrics: 0.0 if trainer_is_first(seen) else 5.0,
        n_trials=3,
        pruner=ThresholdPruner(upper=1.0),
    )
    assert best.run_id == "0"
    assert {each["args"].beta for each in seen.trials} <= {0.2, 0.4}


def trainer_is_first(seen: Seen) -> bool:
    return len(seen.trials) == 1


def test_a_trainer_of_one_model_cannot_search(tmp_path: Path) -> None:
    config = METHODS["npo"].config_class(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=4)
    more = {"forget_dataset": rows(4, 1), "retain_dataset": rows(4, 2), "processing_class": build_tokenizer()}
    with pytest.raises(ValueError, match="model_init: it is missing"):
        METHODS["npo"](build_model(), config, **more).hyperparameter_search()
    with pytest.raises(ValueError, match="model: it is missing"):
        METHODS["npo"](None, config, **more)
    with pytest.raises(ValueError, match="so that model has to be None"):
        METHODS["npo"](build_model(), config, model_init=build_model, **more)
    with pytest.raises(ValueError, match="optimizers: it would belong to another model"):
        METHODS["npo"](None, config, model_init=build_model, optimizers=(None, None), **more)
