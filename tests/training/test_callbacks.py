"""Evaluators in the loop of a Trainer that knows nothing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from tests.evaluation.rows import tiny_tofu
from tests.small_runs import rows
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.benchmarks.tofu.evaluator import TofuEvaluator
from unlearn_hf.data.collator import UnlearningCollator
from unlearn_hf.training.callbacks import EvaluatorCallback


class Scripted:
    """An evaluator that gives one score after the other."""

    def __init__(self, *scores: float) -> None:
        self.scores = iter(scores)
        self.folders: list[Path | None] = []

    def __call__(self, model: Any, tokenizer: Any, *, accelerator: Any = None, output_dir: Any = None) -> Any:
        self.folders.append(output_dir)
        return {"model_utility": next(self.scores)}


def train(folder: Path, callbacks: list[TrainerCallback], eval_dataset: Any = None, **options: Any) -> Trainer:
    arguments = TrainingArguments(
        **{
            "output_dir": str(folder),
            "max_steps": 4,
            "eval_strategy": "steps",
            "eval_steps": 1,
            "save_strategy": "no",
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            **options,
        }
    )
    trainer = Trainer(
        model=build_model(),
        args=arguments,
        train_dataset=rows(8, 1),
        eval_dataset=eval_dataset or rows(4, 2),
        data_collator=UnlearningCollator(1),
        processing_class=build_tokenizer(),
        callbacks=callbacks,
    )
    trainer.train()
    return trainer


def logged(trainer: Trainer, name: str) -> dict[int, float]:
    return {line["step"]: line[name] for line in trainer.state.log_history if name in line}


def test_metrics_are_in_the_log_history(tmp_path: Path) -> None:
    evaluator = Scripted(0.1, 0.2, 0.3, 0.4)
    trainer = train(tmp_path, [EvaluatorCallback([evaluator])])
    assert logged(trainer, "eval_model_utility") == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    assert logged(trainer, "eval_loss").keys() == {1, 2, 3, 4}
    assert evaluator.folders[2] == tmp_path / "evaluations" / "step-3"


BEST = {
    "save_strategy": "steps",
    "save_steps": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "model_utility",
    "greater_is_better": True,
}


@pytest.mark.parametrize(
    ("values", "patience", "stopping_first", "datasets", "best", "steps"),
    [
        pytest.param((0.1, 0.9, 0.3, 0.4), None, False, None, (2, 0.9), 4, id="the best checkpoint"),
        pytest.param((0.5, 0.4, 0.3, 0.2), 1, False, None, (1, 0.5), 2, id="early stopping added later"),
        pytest.param((0.5, 0.4, 0.3, 0.2), 1, True, None, (1, 0.5), 4, id="early stopping added before sees nothing"),
        pytest.param((0.1, 0.9, 0.3, 0.4), 2, False, ("forget", "retain"), (2, 0.9), 4, id="several datasets"),
    ],
)
def test_the_best_checkpoint_and_early_stopping_see_them(
    tmp_path: Path,
    values: tuple[float, ...],
    patience: int | None,
    stopping_first: bool,
    datasets: tuple[str, ...] | None,
    best: tuple[int, float],
    steps: int,
) -> None:
    callbacks: list[TrainerCallback] = [EvaluatorCallback([Scripted(*values)])]
    if patience is not None:
        stopping = EarlyStoppingCallback(early_stopping_patience=patience)
        callbacks.insert(0 if stopping_first else 1, stopping)
    named = {name: rows(4, seed) for seed, name in enumerate(datasets, start=2)} if datasets else None
    trainer = train(tmp_path, callbacks, eval_dataset=named, **BEST)
    assert trainer.state.best_metric == best[1]
    assert str(trainer.state.best_model_checkpoint).endswith(f"checkpoint-{best[0]}")
    assert trainer.state.global_step == steps


@pytest.mark.parametrize("steps", [1, 2])
def test_several_datasets_are_one_evaluation(steps: int, tmp_path: Path) -> None:
    evaluator = Scripted(*range(10))
    datasets = {"forget": rows(4, 2), "retain": rows(4, 3), "other": rows(4, 4)}
    trainer = train(tmp_path, [EvaluatorCallback([evaluator])], eval_dataset=datasets, max_steps=steps)
    assert len(evaluator.folders) == steps
    lines = [line for line in trainer.state.log_history if "eval_model_utility" in line]
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    assert trainer.evaluate()["eval_model_utility"] == steps  # weights may have changed at the same step
    assert trainer.evaluate()["eval_model_utility"] == steps + 1
    assert len(evaluator.folders) == steps + 2


def test_several_evaluators_have_folders_of_their_own(tmp_path: Path) -> None:
    first, second = Scripted(0.1), Scripted(0.2)
    train(tmp_path, [EvaluatorCallback([first, second])], max_steps=1)
    assert (first.folders, second.folders) == (
        [tmp_path / "evaluations" / "step-1" / "0"],
        [tmp_path / "evaluations" / "step-1" / "1"],
    )


def test_tofu_in_the_loop_leaves_training_unchanged(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", [], max_steps=2)
    evaluator = TofuEvaluator(tiny_tofu(), max_new_tokens=3)
    watched = train(tmp_path / "watched", [EvaluatorCallback([evaluator])], max_steps=2)
    for before, after in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert before.equal(after)
    assert logged(watched, "eval_forget_prob").keys() == {1, 2}
    assert (tmp_path / "watched" / "evaluations" / "step-2" / "evaluation.json").is_file()


def test_trainer_without_a_tokenizer(tmp_path: Path) -> None:
    trainer = Trainer(
        model=build_model(),
        args=TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True),
        eval_dataset=rows(2, 2),
        data_collator=UnlearningCollator(1),
        callbacks=[EvaluatorCallback([Scripted(0.1)])],
    )
    with pytest.raises(ValueError, match="pass a tokenizer to EvaluatorCallback"):
        trainer.evaluate()
