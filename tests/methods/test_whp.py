"""Logit arithmetic: the formula, generation, files that plain transformers loads, and what is refused."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from tests.small_runs import build_trainer, largest_difference, parameters, rows
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.data.collator import collate
from unlearn_hf.evaluation.generation.decoding import Decoder
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.methods import WHPConfig
from unlearn_hf.models.loading import load_model
from unlearn_hf.models.whp import WHPForCausalLM
from unlearn_hf.training.memory_estimate import estimate_memory

ALPHA = 1.5


def two_models(tied: bool = False) -> tuple[Any, Any]:
    """A model, and one that differs from it in every weight."""
    base = build_model().eval()
    if tied:
        base.config.tie_word_embeddings = True
        base.tie_weights()
    reinforced = copy.deepcopy(base)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in reinforced.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return base, reinforced


def pair(tied: bool = False) -> WHPForCausalLM:
    return WHPForCausalLM.of(*two_models(tied), ALPHA).eval()


def prompt(count: int = 3) -> Tensor:
    return torch.randint(6, 300, (count, 9), generator=torch.Generator().manual_seed(0))


def reference_log_probabilities(base: Any, reinforced: Any, ids: Tensor) -> Tensor:
    """Of every next token, `[B, T, V]`, by the formula alone, in float64."""
    with torch.no_grad():
        before, after = (copy.deepcopy(model).double()(input_ids=ids).logits for model in (base, reinforced))
    logits = before.clone()
    higher = after > before
    logits[higher] -= ALPHA * (after[higher] - before[higher])
    return logits - torch.logsumexp(logits, -1, keepdim=True)


@pytest.mark.parametrize("tied", [False, True])
def test_distribution_and_likelihood_are_those_of_the_formula(tied: bool) -> None:
    base, reinforced = two_models(tied)
    model = WHPForCausalLM.of(base, reinforced, ALPHA).eval()
    batch = collate(list(rows(6, 3)), pad_token_id=1)
    expected = reference_log_probabilities(base, reinforced, batch["input_ids"])
    with torch.no_grad():
        found = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        likelihood = answer_likelihood(model, batch)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found.logits.double().log_softmax(-1)[real], expected[real], rtol=0, atol=1e-5)
    for row, labels in enumerate(batch["labels"]):
        nll = -sum(expected[row, place - 1, labels[place]] for place in range(1, len(labels)) if labels[place] >= 0)
        assert likelihood.nll[row].item() == pytest.approx(float(nll), abs=1e-4)
    assert (expected.argmax(-1) != base(input_ids=batch["input_ids"]).logits.argmax(-1))[real].any()


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}],
    ids=["greedy", "beams", "sampled"],
)
def test_generation_with_two_caches_is_that_without(options: dict[str, Any]) -> None:
    model, ids = pair(), prompt()
    mask = torch.ones_like(ids)
    mask[0, :4] = 0  # padding on the left
    texts = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        texts.append(model.generate(ids, attention_mask=mask, max_new_tokens=8, use_cache=use_cache, **options))
    assert torch.equal(*texts)
    one = ids[:1]
    guessed = model.generate(one, max_new_tokens=8, prompt_lookup_num_tokens=3)  # takes tokens back
    assert torch.equal(guessed, model.generate(one, max_new_tokens=8))
    with pytest.raises(ValueError, match="past_key_values: StaticCache"):
        model.generate(ids, max_new_tokens=2, cache_implementation="static")


LOADED_ELSEWHERE = """
import sys
sys.modules["unlearn_hf"] = None  # importing it is an error
import torch
from transformers import AutoModelForCausalLM
folder = sys.argv[1]
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules")
ids = torch.load(folder + "/ids.pt")
text = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5)
with torch.no_grad():
    torch.save((model(input_ids=ids).logits, text), folder + "/found.pt")
model.save_pretrained(folder + "/again")
"""


@pytest.mark.parametrize("tied", [False, True])
def test_plain_transformers_loads_it(tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = pair(tied), prompt()
    model.save_pretrained(tmp_path)
    torch.save(ids, tmp_path / "ids.pt")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    subprocess.run([sys.executable, "-c", LOADED_ELSEWHERE, str(tmp_path)], check=True)
    logits, text = torch.load(tmp_path / "found.pt")
    with torch.no_grad():
        torch.testing.assert_close(logits, model(input_ids=ids).logits, rtol=0, atol=0)
    assert torch.equal(text, model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5))
    for folder in (tmp_path, tmp_path / "again"):  # here, its own code is trusted
        loaded: Any = load_model(str(folder))
        assert type(loaded) is WHPForCausalLM
        assert largest_difference(parameters(loaded), parameters(model)) == 0.0
        for part in (loaded.base, loaded.reinforced):
            assert (part.lm_head.weight is part.model.embed_tokens.weight) == tied


def test_it_is_generated_from_by_transformers(tmp_path: Path) -> None:
    assert not Decoder(pair(), torch.device("cpu"), ()).agrees([7, 8, 9])


def test_the_reinforced_model_is_tuned_on_the_forget_rows_and_the_base_stays(tmp_path: Path) -> None:
    start = parameters(build_model())
    trainer = build_trainer("whp", tmp_path)
    trainer.train()
    vector = build_trainer("task-vector", tmp_path)
    vector.train()
    assert largest_difference(parameters(trainer.model.base), start) == 0.0
    for name, value in parameters(trainer.model.reinforced).items():
        turned = start[name] - (value - start[name])
        torch.testing.assert_close(parameters(vector.model)[name], turned, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="train: "):
        trainer.train()


def test_a_given_reinforced_model_is_taken_and_nothing_trained(tmp_path: Path) -> None:
    base, reinforced = two_models()
    reinforced.save_pretrained(tmp_path / "reinforced")
    idle = "of no effect: learning_rate 0.05, max_steps 3, per_device_train_batch_size 4"
    with pytest.warns(UserWarning, match=idle):
        trainer = build_trainer("whp", tmp_path, model=base, reinforced_model=str(tmp_path / "reinforced"))
    estimate = estimate_memory(base, trainer.args, {"forget": [], "retain": []}, 3, type(trainer))
    assert estimate.parts == {"weights": 2 * sum(each.nbytes for each in (*base.parameters(), *base.buffers()))}
    trainer.train()
    assert trainer.state.global_step == 0
    expected = parameters(WHPForCausalLM.of(*two_models(), ALPHA))
    assert largest_difference(parameters(trainer.model), expected) == 0.0
    assert trainer.evaluate(trainer.train_dataset.forget)["eval_loss"] > 0
    trainer.save_model(str(tmp_path / "saved"))
    assert largest_difference(parameters(load_model(str(tmp_path / "saved"))), expected) == 0.0


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.0},
        {"alpha": -1.0},
        {"alpha": float("inf")},
        {"forget_loss": "npo"},
        {"retain_budget": 0.1},
        {"max_steps": 0},
        {"num_train_epochs": 0},
        {"reinforced_model": "./nowhere"},
    ],
)
def test_bad_options_are_named(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        WHPConfig(output_dir=str(tmp_path), **options)


def test_what_cannot_stand_side_by_side_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    adapter = LoraConfig(r=4, target_modules="all-linear")
    with pytest.raises(ValueError, match="peft_config: whp"):
        build_trainer("whp", tmp_path, peft_config=adapter)
    build_model(vocab_size=408).save_pretrained(tmp_path / "wide")
    build_tokenizer().save_pretrained(tmp_path / "wide")
    with pytest.raises(ValueError, match="its vocabulary has 408 tokens, that of the base model 400"):
        build_trainer("whp", tmp_path, reinforced_model=str(tmp_path / "wide"))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{tmp_path}/wide"}}')
    shutil.copy(tmp_path / "wide" / "model.safetensors", tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"reinforced_model: .* is an adapter"):
        build_trainer("whp", tmp_path, reinforced_model=str(tmp_path / "adapter"))
