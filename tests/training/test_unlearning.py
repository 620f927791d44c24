"""The base trainer: bad input, divergence, references, evaluation in the loop, precision."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import EarlyStoppingCallback

from tests.small_runs import build_trainer, largest_difference, parameters, rows
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.methods import (
    EUPMUConfig,
    GradDiffConfig,
    GradDiffTrainer,
    GradientSurgeryConfig,
    NGDiffConfig,
    NPOConfig,
)
from unlearn_hf.models.loading import load_model
from unlearn_hf.models.trained_parameters import rounded_away, select_trainable
from unlearn_hf.models.wrappers import has_dropout
from unlearn_hf.training.backends import check_two_gradients
from unlearn_hf.training.finetuning import FinetuningTrainer
from unlearn_hf.training.finetuning_config import FinetuningConfig


class TestBadInput:
    """Every error names the field and comes before a model is loaded: the model named here does not exist."""

    def build(self, tmp_path: Path, **overrides: Any) -> Any:
        arguments: dict[str, Any] = {
            "model": "model/that-is-not-there",
            "args": GradDiffConfig(output_dir=str(tmp_path), per_device_train_batch_size=4, use_cpu=True),
            "forget_dataset": rows(4, 1),
            "retain_dataset": rows(8, 2),
            "processing_class": build_tokenizer(),
        }
        return GradDiffTrainer(**{**arguments, **overrides})

    def test_model_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="model: 'model/that-is-not-there'"):
            self.build(tmp_path)

    def test_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"model: the folder .* holds neither"):
            self.build(tmp_path, model=str(tmp_path))

    @pytest.mark.parametrize("name", ["forget_dataset", "retain_dataset"])
    def test_empty_set(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name}: the dataset is empty"):
            self.build(tmp_path, model=build_model(), **{name: Dataset.from_dict({"question": [], "answer": []})})

    def test_retain_set_smaller_than_a_batch(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="retain_dataset: 3 rows do not fill one batch of 4"):
            self.build(tmp_path, model=build_model(), retain_dataset=rows(3, 2))

    def test_columns_that_do_not_fit(self, tmp_path: Path) -> None:
        wrong = Dataset.from_dict({"query": ["a"] * 4, "reply": ["b"] * 4})
        with pytest.raises(ValueError, match=r"forget_dataset.*query.*question and answer"):
            self.build(tmp_path, model=build_model(), forget_dataset=wrong)

    def test_configuration_of_another_method(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="GradDiffConfig"):
            self.build(tmp_path, args=NPOConfig(output_dir=str(tmp_path)))

    @pytest.mark.parametrize(
        ("config", "options", "field"),
        [
            (NPOConfig, {"attn_implementation": "flash"}, "attn_implementation"),
            (NPOConfig, {"attn_implementation": "flash_attention_2"}, "attn_implementation"),
            (GradDiffConfig, {"forget_weight": -1.0}, "forget_weight"),
            (NPOConfig, {"retain_weight": -0.1}, "retain_weight"),
            (NPOConfig, {"forget_weight": 0.0, "retain_weight": 0.0}, "forget_weight"),
            (NPOConfig, {"beta": 0.0}, "beta"),
            (GradDiffConfig, {"beta": 0.1}, "beta"),
            (NPOConfig, {"forget_loss": "nop"}, "forget_loss"),
            (NPOConfig, {"retain_loss": "ce"}, "retain_loss"),
            (NPOConfig, {"trainable_dtype": "int8"}, "trainable_dtype"),
            (NPOConfig, {"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
            (NPOConfig, {"remove_unused_columns": True}, "remove_unused_columns"),
            (GradientSurgeryConfig, {"rule": "pcgradd"}, "rule"),
            (GradientSurgeryConfig, {"rule": "mgda", "epsilon": 0.1}, "epsilon"),
            (GradientSurgeryConfig, {"epsilon": -0.1}, "epsilon"),
            (GradientSurgeryConfig, {"rule": "one_sided_pcgrad", "epsilon": 0.1}, "epsilon"),
            (GradientSurgeryConfig, {"rule": "one_sided_pcgrad", "retain_weight": -1.0}, "retain_weight"),
            (GradientSurgeryConfig, {"rule": "one_sided_pcgrad", "forget_weight": 0.0}, "forget_weight"),
            (GradientSurgeryConfig, {"retain_weight": 2.0}, "retain_weight"),
            (NGDiffConfig, {"autolr": True, "lr_scheduler_type": "cosine"}, "autolr"),
            (NGDiffConfig, {"autolr": True, "warmup_steps": 5}, "autolr"),
            (NGDiffConfig, {"autolr_interval": 0}, "autolr_interval"),
            (NGDiffConfig, {"autolr_min": 2.0, "autolr_max": 1.0}, "autolr_min"),
            (EUPMUConfig, {"dual_signal": "sqrt"}, "dual_signal"),
        ],
    )
    def test_bad_configuration(self, tmp_path: Path, config: Any, options: dict[str, Any], field: str) -> None:
        with pytest.raises(ValueError, match=f"^{field}:"):
            config(output_dir=str(tmp_path), **options)

    def test_two_gradients_under_deepspeed(self, tmp_path: Path) -> None:
        trainer = build_trainer("ngdiff", tmp_path)
        trainer.args.deepspeed = {"zero_optimization": {"stage": 2}}
        with pytest.raises(ValueError, match=r"deepspeed: NGDiffTrainer .* DDP or FSDP2"):
            check_two_gradients(trainer.args, "NGDiffTrainer")


class TestDivergence:
    @pytest.mark.parametrize("case", ["graddiff", "ngdiff", "eupmu"])
    def test_run_stops_before_the_update_and_says_why(self, case: str, tmp_path: Path) -> None:
        trainer = build_trainer(case, tmp_path, max_steps=4)
        original = trainer.objective_loss

        def broken(model: Any, name: str, batch: Any, *rest: Any) -> torch.Tensor:
            loss = original(model, name, batch, *rest)
            return loss * float("nan") if trainer.state.global_step == 2 and name == "forget" else loss

        trainer.objective_loss = broken  # type: ignore[method-assign]
        with pytest.warns(UserWarning, match="diverged at step 3"):
            trainer.train()
        assert trainer.state.global_step == 3
        assert trainer.divergence is not None
        assert "step 3" in trainer.divergence
        assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
        good = build_trainer(case, tmp_path, max_steps=2)
        good.train()
        assert largest_difference(parameters(good.model), parameters(trainer.model)) == 0.0


class TestEvaluation:
    class Counter:
        """An evaluator whose metric follows a script."""

        def __init__(self, values: list[float]) -> None:
            self.values = values
            self.folders: list[Path] = []

        def __call__(
            self, model: Any, tokenizer: Any, *, accelerator: Any = None, output_dir: Any = None
        ) -> dict[str, float]:
            self.folders.append(output_dir)
            return {"quality": self.values[min(len(self.folders), len(self.values)) - 1]}

    def test_metrics_reach_log_best_checkpoint_and_early_stopping(self, tmp_path: Path) -> None:
        counter = self.Counter([0.1, 0.9, 0.3, 0.2, 0.1])
        trainer = build_trainer(
            "graddiff",
            tmp_path,
            max_steps=5,
            eval_strategy="steps",
            eval_steps=1,
            save_strategy="steps",
            save_steps=1,
            load_best_model_at_end=True,
            metric_for_best_model="quality",
            greater_is_better=True,
            callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
        )
        trainer.evaluators = [counter]
        trainer.train()
        assert trainer.state.best_metric == 0.9
        assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
        assert trainer.state.global_step == 4
        assert [line["eval_quality"] for line in trainer.state.log_history if "eval_quality" in line] == [
            0.1,
            0.9,
            0.3,
            0.2,
        ]
        assert counter.folders[0].name == "step-1"

    def test_losses_of_evaluation_sets(self, tmp_path: Path) -> None:
        trainer = build_trainer("npo", tmp_path)
        trainer.eval_dataset = {"forget": rows(5, 7), "retain": rows(6, 8)}
        metrics = trainer.evaluate()
        assert {"eval_forget_loss", "eval_retain_loss"} <= metrics.keys()


class TestPrecision:
    def test_half_precision_weights_are_raised_to_master_weights(self, tmp_path: Path) -> None:
        trainer = build_trainer("graddiff", tmp_path, model=build_model().to(torch.bfloat16))
        assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())

    def test_frozen_base_keeps_its_precision_under_an_adapter(self, tmp_path: Path) -> None:
        trainer = build_trainer(
            "npo",
            tmp_path,
            model=build_model().to(torch.bfloat16),
            peft_config=LoraConfig(r=2, target_modules="all-linear"),
        )
        trainer.train()
        for name, parameter in trainer.model.named_parameters():
            assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16), name

    def test_low_precision_weights_only_with_a_warning_that_counts(self, tmp_path: Path) -> None:
        with pytest.warns(UserWarning, match=r"trainable_dtype: .* about \d+% of the updates round to zero"):
            build_trainer("graddiff", tmp_path, trainable_dtype="bfloat16", learning_rate=1e-5)

    def test_share_of_lost_updates(self) -> None:
        layer = torch.nn.Linear(2, 2, bias=False).to(torch.bfloat16)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[1.0, 0.5], [1e-4, 0.0]]))
        assert rounded_away(layer, 1e-5) == 0.5
        changed = (layer.weight.detach() - 1e-5) != layer.weight.detach()
        assert changed.float().mean().item() == 0.5

    def test_bfloat16_compute(self, tmp_path: Path) -> None:
        exact, rounded = (build_trainer("ngdiff", tmp_path, bf16=flag) for flag in (False, True))
        for trainer in (exact, rounded):
            trainer.train()
        difference = largest_difference(parameters(exact.model), parameters(rounded.model))
        assert 0 < difference < 0.05


def test_only_chosen_parameters_are_trained(tmp_path: Path) -> None:
    trainer = build_trainer("ngdiff", tmp_path, trainable_parameters=[r"layers\.1\.mlp\.down_proj"])
    before = parameters(trainer.model)
    trainer.train()
    changed = {name for name, value in parameters(trainer.model).items() if (value != before[name]).any()}
    assert changed == {"model.layers.1.mlp.down_proj.weight"}


def test_patterns_that_match_nothing_are_refused(tiny_model: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=r"trainable_parameters: 'layers.9'"):
        select_trainable(tiny_model, ["layers.9"])
    with pytest.raises(ValueError, match="regular expression"):
        select_trainable(tiny_model, ["("])


def test_dropout_is_seen() -> None:
    assert not has_dropout(build_model())
    assert has_dropout(build_model(dropout=0.1))
    assert has_dropout(torch.nn.Sequential(torch.nn.Dropout(0.1)))


def test_retain_loss_is_remeasured_under_the_same_dropout(tmp_path: Path) -> None:
    trainer = build_trainer("eupmu", tmp_path, model=build_model(dropout=0.3), max_steps=1, learning_rate=1e-12)
    seen = []
    trainer.after_step = lambda before, after: seen.append((before.retain, after.retain))  # type: ignore[method-assign]
    trainer.train()
    assert seen[0][1] == pytest.approx(seen[0][0], rel=1e-6)


def test_finetuning_averages_over_tokens_whatever_the_micro_batches(tmp_path: Path) -> None:
    results = []
    for batch, steps in ((4, 1), (1, 4)):
        config = FinetuningConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            max_steps=3,
            learning_rate=0.05,
            optim="sgd",
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = FinetuningTrainer(build_model(), config, rows(12, 1), processing_class=build_tokenizer())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".*pin_memory.*")
            trainer.train()
        results.append(parameters(trainer.model))
    assert largest_difference(*results) < 2e-6


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_of_a_model_given_by_name(attention: str, tmp_path: Path) -> None:
    build_model().save_pretrained(tmp_path)
    model = load_model(str(tmp_path), attention=attention)
    assert model.config._attn_implementation == attention
