"""What trainers take from the model before unlearning: likelihoods, distributions, an adapter that is disabled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import concatenate_datasets
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from tests.small_runs import build_trainer, largest_difference, parameters, rows
from tests.tiny_models import build_model
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.reference.model_before import ReferenceModel, reference_nll


class TestReference:
    def test_resumed_run_takes_the_column_of_its_checkpoint(self, tmp_path: Path) -> None:
        """Not what the model at hand says, which need not be the one before unlearning any more."""
        steps = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}
        whole = build_trainer("npo", tmp_path / "whole", **steps)
        whole.train()
        other = build_model()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(0.5)
        resumed = build_trainer("npo", tmp_path / "resumed", model=other, **steps)
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
        assert largest_difference(parameters(whole.model), parameters(resumed.model)) == 0.0

    def test_column_of_a_checkpoint_is_not_taken_for_other_rows(self, tmp_path: Path) -> None:
        steps = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
        build_trainer("npo", tmp_path / "whole", **steps).train()
        state = torch.load(tmp_path / "whole" / "checkpoint-2" / "method_state.pt")["reference_nll"]
        for seed in (1, 3):
            trainer = build_trainer("npo", tmp_path / "other", forget_seed=seed)
            trainer.reference_columns.load_state_dict(state)
            trainer.reference_columns.measure(trainer.model)
            column = torch.tensor(trainer.train_dataset.forget["reference_nll"][:])
            assert torch.allclose(column, state["forget"]["nll"]) == (seed == 1)

    def test_column_equals_the_model_before_unlearning_and_is_cached(self, tmp_path: Path) -> None:
        model, dataset = build_model(dropout=0.1), rows(9, 3)
        trainer = build_trainer("npo", tmp_path, model=model)
        expected = []
        model.eval()
        for row in dataset:
            batch = {name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}
            expected.append(answer_likelihood(model, batch).nll.item())
        model.train()
        options: dict[str, Any] = {
            "batch_size": 4,
            "accelerator": trainer.accelerator,
            "cache": tmp_path / "cache",
        }
        first = reference_nll(model, dataset, list(range(9)), trainer.data_collator, **options)
        assert first.tolist() == pytest.approx(expected, rel=1e-5)
        assert model.training
        (file,) = (tmp_path / "cache").iterdir()
        stamp = file.stat().st_mtime_ns
        again = reference_nll(model, dataset, list(range(9)), trainer.data_collator, **options)
        assert torch.equal(first, again)
        assert file.stat().st_mtime_ns == stamp
        with torch.no_grad():
            next(model.parameters())[5, 5] += 0.5  # another model: the cache must not be used
        reference_nll(model, dataset, list(range(9)), trainer.data_collator, **options)
        assert len(list((tmp_path / "cache").iterdir())) == 2

    @pytest.mark.parametrize("change", ["rope_theta", "dtype", "attention", "more rows"])
    def test_cache_knows_what_the_options_do_not_show(self, change: str, tmp_path: Path) -> None:
        trainer = build_trainer("npo", tmp_path)
        options: dict[str, Any] = {"batch_size": 4, "accelerator": trainer.accelerator}
        asked = (list(range(9)), trainer.data_collator)
        model, dataset = build_model(), rows(9, 3)
        if change == "dtype":
            model = model.bfloat16()
        reference_nll(model, dataset, *asked, **options, cache=tmp_path / "cache")
        if change == "rope_theta":
            config = model.config
            config.rope_parameters = {**config.rope_parameters, "rope_theta": 7.0}
            model = LlamaForCausalLM(config)
            model.load_state_dict(build_model().state_dict())
        elif change == "dtype":
            model = model.float()
        elif change == "attention":
            model.set_attn_implementation("eager")
        else:
            dataset = concatenate_datasets([dataset, rows(3, 4)])
        found = reference_nll(model, dataset, *asked, **options, cache=tmp_path / "cache")
        fresh = reference_nll(model, dataset, *asked, **options)
        torch.testing.assert_close(found, fresh, rtol=0, atol=0, equal_nan=True)
        assert len(list((tmp_path / "cache").iterdir())) == 2

    @pytest.mark.parametrize("strategy", ["disabled adapter", "adapter copy", "model copy"])
    def test_logits_stay_those_of_the_model_before_unlearning(self, strategy: str, tmp_path: Path) -> None:
        model: Any = build_model()
        if strategy != "model copy":
            model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
        if strategy == "adapter copy":  # an adapter that was trained before
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_B" in name:
                        parameter.normal_(std=0.1)
        batch = {name: torch.tensor([rows(1, 4)[0][name]]) for name in ("input_ids", "labels")}
        before = answer_likelihood(model, batch, keep_logits=True).logits.detach()
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        reference = ReferenceModel(model)
        assert reference.strategy == strategy
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05)
        now = answer_likelihood(model, batch, keep_logits=True).logits.detach()
        torch.testing.assert_close(reference.logits(model, batch)(slice(None)), before, rtol=1e-6, atol=1e-6)
        assert (now - before).abs().max() > 1e-2
        torch.testing.assert_close(answer_likelihood(model, batch, keep_logits=True).logits.detach(), now)
        assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trained
