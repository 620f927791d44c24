"""Greedy generation: equal for every batch, and the model keeps its own settings."""

from __future__ import annotations

import copy

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tests.evaluation.models import ends_at_once
from unlearn_hf.evaluation.generation import GeneratedText, GenerationSettings, end_tokens
from unlearn_hf.evaluation.generation.padded_batches import generate_batch

CPU = torch.device("cpu")


def prompts() -> list[GeneratedText]:
    generator = torch.Generator().manual_seed(1)
    return [
        GeneratedText(str(length), [0, *torch.randint(6, 300, (length,), generator=generator).tolist()])
        for length in (3, 11, 6, 8)
    ]


def test_batches_and_order_change_nothing(tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    tiny_model.eval()
    settings = GenerationSettings(max_new_tokens=8)
    together = generate_batch(tiny_model, tokenizer, prompts(), settings, CPU)
    alone = [generate_batch(tiny_model, tokenizer, [prompt], settings, CPU)[0] for prompt in prompts()]
    backwards = generate_batch(tiny_model, tokenizer, prompts()[::-1], settings, CPU)[::-1]
    assert together == alone == backwards
    assert any(together)


def test_equals_the_most_likely_tokens_one_by_one(
    tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    tiny_model.eval()
    prompt = prompts()[1]
    ids = list(prompt.input_ids)
    for _ in range(5):
        with torch.no_grad():
            ids.append(int(tiny_model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    expected = tokenizer.decode(ids[prompt.length :], skip_special_tokens=True)
    assert generate_batch(tiny_model, tokenizer, [prompt], GenerationSettings(5), CPU) == [expected]


def test_sampling_settings_of_the_model_are_ignored_and_kept(
    tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    tiny_model.eval()
    greedy = generate_batch(tiny_model, tokenizer, prompts(), GenerationSettings(8), CPU)
    own = tiny_model.generation_config
    own.update(do_sample=True, temperature=5.0, top_p=0.9, repetition_penalty=3.0, num_beams=3, min_new_tokens=8)
    before = copy.deepcopy(own.to_dict())
    tiny_model.config.use_cache = False
    tokenizer.padding_side = "right"
    assert generate_batch(tiny_model, tokenizer, prompts(), GenerationSettings(8), CPU) == greedy
    assert tiny_model.generation_config is own
    assert own.to_dict() == before
    assert tiny_model.config.use_cache is False
    assert tokenizer.padding_side == "right"


def test_settings_of_a_model_in_a_wrapper_are_ignored_and_kept(
    tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """PEFT copies its settings into the model inside; an engine of DeepSpeed has the model's until they are set."""
    greedy = generate_batch(tiny_model, tokenizer, prompts(), GenerationSettings(8), CPU)
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    tiny_model.generation_config.update(repetition_penalty=3.0)
    own = tiny_model.generation_config
    for wrapped in (Engine(tiny_model), get_peft_model(tiny_model, lora)):
        assert generate_batch(wrapped.eval(), tokenizer, prompts(), GenerationSettings(8), CPU) == greedy
        assert tiny_model.generation_config.repetition_penalty == 3.0
    assert wrapped.generation_config is own or wrapped.generation_config.repetition_penalty == 3.0


class Engine(torch.nn.Module):
    """Attributes that it lacks are those of the model inside."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def __getattr__(self, name: str) -> object:
        if name == "module":
            return super().__getattr__(name)
        return getattr(self.module, name)


def test_a_model_that_ends_at_once_says_nothing(
    tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert generate_batch(ends_at_once(tiny_model), tokenizer, prompts(), GenerationSettings(8), CPU) == [""] * 4


def test_official_limit_counts_prompt_and_padding(
    tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    lengths: list[int] = []
    generate = tiny_model.generate

    def watched(**arguments: object) -> torch.Tensor:
        output = generate(**arguments)  # type: ignore[arg-type]
        lengths.append(output.shape[1])
        return output

    tiny_model.generate = watched  # type: ignore[method-assign]
    tiny_model.config.eos_token_id = tiny_model.generation_config.eos_token_id = None
    generate_batch(tiny_model, tokenizer, prompts(), GenerationSettings(200, max_length=20), CPU)
    generate_batch(tiny_model, tokenizer, prompts()[1:2], GenerationSettings(200, max_length=5), CPU)
    assert lengths[0] <= 20
    assert lengths[1] == 13  # twelve tokens of prompt: one token is generated all the same


def test_end_tokens_of_tokenizer_and_model(tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    assert end_tokens(tokenizer, tiny_model) == [1]
    tiny_model.generation_config.eos_token_id = [2, 1]
    assert end_tokens(tokenizer, tiny_model) == [1, 2]
