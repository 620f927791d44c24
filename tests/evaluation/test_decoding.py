"""Decoding in slots: the same tokens as one by one, in fewer passes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from transformers import (
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from tests.evaluation.decoding_models import MODELS, gemma2
from tests.tiny_models import build_model
from unlearn_hf.evaluation.generation import GeneratedText, GenerationSettings, choose_backend, decoding, generate
from unlearn_hf.evaluation.generation.decoding import Decoder, Sampling, Text, shared_beginning
from unlearn_hf.evaluation.generation.decoding_cache import KeyValueSlots

CPU = torch.device("cpu")


def prompts(count: int = 9) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    beginning = [0, *range(20, 30)]
    lengths = [1, 12, 5, 3, 40, 7, 7, 2, 9][:count]
    return [beginning + torch.randint(6, 300, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
def one_by_one(model: Any, prompt: list[int], count: int, ends: frozenset[int] = frozenset()) -> list[int]:
    """Greedy decoding without a cache."""
    ids = list(prompt)
    for _ in range(count):
        token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in ends:
            break
        ids.append(token)
    return ids[len(prompt) :]


def decode(model: Any, texts: list[Text], **options: Any) -> list[list[int]]:
    return [text.generated for text in Decoder(model, CPU, **{"ends": (), **options}).run(texts)]


@pytest.mark.parametrize("slots", [1, 3, 16])
@pytest.mark.parametrize("name", MODELS)
def test_the_same_tokens_as_one_by_one(name: str, slots: int) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    expected = [one_by_one(model, prompt, 12) for prompt in prompts()]
    # Guesses that are right, wrong from the start, right in part, too long, and none at all.
    guesses = [expected[0], [7] * 6, [*expected[2][:4], 7, 8], [*expected[3], 5, 5, 5], [], [], expected[6], [], []]
    shared = shared_beginning(prompts())
    assert shared >= 10
    for begin in (0, shared):
        texts = [Text(prompt, 12, guess=guess, shared=begin)
                 for prompt, guess in zip(prompts(), guesses, strict=True)]  # fmt: skip
        assert decode(model, texts, slots=slots) == expected
    inner = model.get_base_model() if name == "adapter" else model
    assert inner.config._attn_implementation == ("eager" if name == "qwen" else "sdpa")


def test_a_right_guess_takes_two_passes_and_done_rows_make_room() -> None:
    model = build_model().eval()
    passes: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    expected = [one_by_one(model, prompt, 10) for prompt in prompts(4)]
    passes.clear()
    assert decode(model, [Text(p, 10, guess=e) for p, e in zip(prompts(4), expected, strict=True)]) == expected
    assert passes == [sum(map(len, prompts(4))) + 4 * 6, 4 * (1 + 2)]
    passes.clear()
    # Two slots, and rows of 1, 1, 1 and 10 tokens: the long one does not hold the others up.
    budgets = [10, 1, 1, 1]
    decode(model, [Text(p, budget) for p, budget in zip(prompts(4), budgets, strict=True)], slots=2)
    assert len(passes) <= 10


def test_a_wrong_guess_costs_a_few_tokens_once() -> None:
    """It is not tried again, and nothing that did not repeat is."""
    model, fed = build_model().eval(), 0
    expected = one_by_one(model, prompts(1)[0], 30)
    wrong = [1 + token for token in expected]

    def count(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        nonlocal fed
        fed += kwargs["input_ids"].shape[1]

    model.register_forward_pre_hook(count, with_kwargs=True)
    assert decode(model, [Text(prompts(1)[0], 30, guess=wrong)]) == [expected]
    with_guess, fed = fed, 0
    assert decode(model, [Text(prompts(1)[0], 30)]) == [expected]
    assert with_guess == fed + 6


def test_a_pass_is_filled_by_what_is_fed_of_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_NEW_TOKENS_PER_STEP", 100)
    model, passes = build_model().eval(), []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    decode(model, [Text(prompt, 50, guess=[7] * 50) for prompt in prompts(9)])
    longest = max(map(len, prompts(9))) + 6
    assert 100 <= passes[0] < 100 + longest


def test_slots_keep_what_they_hold_where_they_grow() -> None:
    cache, held = KeyValueSlots(3, 40), torch.randn(3, 2, 6, 4)
    cache.reserve(6, 0)
    keys, values = cache.of_layer(0, held[:1])
    assert keys.shape == values.shape == (3, 2, 9, 4)
    keys[:, :, :6], values[:, :, :6] = held, -held
    cache.slots = 2
    for longest, room in ((9, 9), (10, 15), (38, 40)):
        cache.reserve(longest, 2)
        for each, expected in zip(cache.layers[0], (held, -held), strict=True):
            assert each.shape[2] == room
            assert torch.equal(each[:2, :, :6], expected[:2])
            assert not each[:2, :, 6:].any()


def test_repetition_is_guessed(tiny_model: LlamaForCausalLM) -> None:
    """A model that says the same over and over; every token but the first few is checked, not asked for."""
    with torch.no_grad():
        for layer in tiny_model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    expected = one_by_one(tiny_model.eval(), prompts()[1], 60)
    passes: list[int] = []
    tiny_model.register_forward_pre_hook(lambda *_: passes.append(1))
    assert decode(tiny_model, [Text(prompts()[1], 60)]) == [expected]
    assert len(passes) < 60


def test_ends_and_stops(tiny_model: LlamaForCausalLM) -> None:
    tiny_model.eval()
    whole = one_by_one(tiny_model, prompts()[2], 12)
    end = whole[5]
    expected = whole[: whole.index(end)]
    for guess in ([], whole):
        assert decode(tiny_model, [Text(prompts()[2], 12, guess=guess)], ends={end}) == [expected]
    stopped = decode(tiny_model, [Text(prompts()[2], 12, guess=whole)], stop=lambda tokens: len(tokens) == 3)
    assert stopped == [whole[:3]]


def test_samples_follow_the_distribution_and_not_the_batch(tiny_model: LlamaForCausalLM) -> None:
    tiny_model.eval()
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            parameter.mul_(0.7)  # so that several tokens are likely
        logits = tiny_model(torch.tensor([prompts()[1]])).logits[0, -1]
    count = 4000
    for temperature, top_p in ((1.0, 1.0), (2.0, 1.0), (1.0, 0.6)):
        probabilities, order = (logits / temperature).softmax(-1).sort(descending=True)
        allowed = (probabilities.cumsum(-1) - probabilities < top_p).sum()
        kept = probabilities[:allowed] / probabilities[:allowed].sum()
        texts = [Text(prompts()[1], 1, seed=str(index), shared=11) for index in range(count)]
        drawn = Counter(t[0] for t in decode(tiny_model, texts, slots=500, sampling=Sampling(temperature, top_p)))
        assert set(drawn) <= set(order[:allowed].tolist())
        for token, probability in list(zip(order.tolist(), kept.tolist(), strict=False))[:5]:
            # five standard deviations
            assert abs(drawn[token] / count - probability) < 5 * (probability * (1 - probability) / count) ** 0.5
    sampling = Sampling(1.0)
    alone = [decode(tiny_model, [Text(prompts()[1], 8, seed=str(i))], sampling=sampling)[0] for i in range(3)]
    together = decode(tiny_model, [Text(prompts()[1], 8, seed=str(i), shared=22) for i in range(3)], sampling=sampling)
    assert alone == together
    assert len({tuple(tokens) for tokens in alone}) > 1


@pytest.mark.parametrize("backend", ["slots", "transformers"])
def test_backends_give_the_same_texts(
    backend: str, tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    tiny_model.eval()

    def texts(settings: GenerationSettings, which: str) -> list[Any]:
        items = [GeneratedText(str(i), ids, settings) for i, ids in enumerate(prompts())]
        return list(generate(which, tiny_model, tokenizer, items, CPU, batch_size=4))

    for settings in (GenerationSettings(9), GenerationSettings(max_length=56)):
        assert texts(settings, backend) == texts(settings, "transformers")
    sampled = texts(GenerationSettings(5, samples=3, temperature=1.0), backend)
    assert [len(each) for each in sampled] == [3] * 9
    assert sampled == texts(GenerationSettings(5, samples=3, temperature=1.0), backend)
    assert sampled != texts(GenerationSettings(5, samples=3, temperature=1.0, seed=1), backend)


@pytest.mark.parametrize("backend", ["slots", "transformers"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_samples_that_come_one_by_one_differ(
    backend: str, batch_size: int, tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    tiny_model.eval()
    drawn = GenerationSettings(8, temperature=1.0)
    items = [GeneratedText(f"row/{sample}", prompts()[0], drawn) for sample in range(4)]
    found = list(generate(backend, tiny_model, tokenizer, items, CPU, batch_size=batch_size))
    assert len(set(found)) == 4


def test_texts_end_at_their_stops(tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    tiny_model.eval()
    whole = GeneratedText("a", prompts()[1], GenerationSettings(20))
    text = next(generate("slots", tiny_model, tokenizer, [whole], CPU))
    stop = text[6:8]
    cut = GeneratedText("a", prompts()[1], GenerationSettings(20, stops=("never there", stop)))
    shorter = next(generate("slots", tiny_model, tokenizer, [cut], CPU))
    assert len(shorter) < len(text)
    assert shorter.split(stop)[0] == text.split(stop)[0]


def test_a_model_that_cannot_read_slots_takes_the_usual_way(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    model = gemma2()
    items = [GeneratedText(str(i), ids, GenerationSettings(5)) for i, ids in enumerate(prompts())]
    assert choose_backend("auto", model, tokenizer, items, CPU) == "transformers"
    assert model.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="generation_backend: 'slots' is not possible, Gemma2ForCausalLM gives other"):
        choose_backend("slots", model, tokenizer, items, CPU)
    assert choose_backend("auto", build_model().eval(), tokenizer, items, CPU) == "slots"


@pytest.mark.parametrize("name", MODELS)
def test_continuous_batching_gives_the_same_texts(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    items = [GeneratedText(str(i), ids, GenerationSettings(8)) for i, ids in enumerate(prompts())]
    attention = model.config._attn_implementation
    chosen = choose_backend("transformers_continuous", model, tokenizer, items, CPU)
    both = [list(generate(backend, model, tokenizer, items, CPU)) for backend in (chosen, "transformers")]
    assert both[0] == both[1]
    assert any(both[0])
    assert model.config._attn_implementation == attention


def test_what_continuous_batching_cannot_do_is_refused(
    tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "transformers_continuous"

    def items(settings: GenerationSettings) -> list[GeneratedText]:
        return [GeneratedText("a", prompts()[0], settings)]

    for settings, sharded, message in (
        (GenerationSettings(5), True, "the model is sharded"),
        (GenerationSettings(5, max_length=20), False, "it has no padding, which protocol 'official' counts"),
    ):
        with pytest.raises(ValueError, match=f"generation_backend: '{name}' is not possible, {message}"):
            choose_backend(name, tiny_model, tokenizer, items(settings), CPU, sharded)
    with pytest.raises(ValueError, match="its attention leaves out soft caps"):
        choose_backend(name, gemma2(), tokenizer, items(GenerationSettings(5)), CPU)
    with pytest.raises(ValueError, match="draws all texts from one generator"):
        generate(name, tiny_model, tokenizer, items(GenerationSettings(5, temperature=1.0)), CPU)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="without mixed precision"):
        generate(name, tiny_model, tokenizer, items(GenerationSettings(5)), CPU)
    monkeypatch.setattr(type(tiny_model), "generate_batch", lambda *_, **__: {})
    with pytest.raises(RuntimeError, match="gave 0 of 1 texts"):
        generate(name, tiny_model, tokenizer, items(GenerationSettings(5)), CPU)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 3}, "samples: 3 greedy continuations are all the same"),
        ({"samples": 0, "temperature": 1.0}, "samples: 0"),
        ({"temperature": -1.0}, "temperature: -1.0 is negative"),
        ({"temperature": float("nan")}, "temperature: nan"),
        ({"top_p": 0.0}, "top_p: 0.0 is not in"),
        ({"max_new_tokens": 0}, "max_new_tokens: 0"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenerationSettings(**options)
