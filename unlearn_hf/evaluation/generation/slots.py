"""Our own decoder as a backend: texts that are done leave their slot, and likely tokens are only checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from unlearn_hf.evaluation.generation.decoding import Decoder, Sampling, Text, shared_beginning
from unlearn_hf.evaluation.generation.prompts import GeneratedText, GenerationSettings, end_tokens

_CACHE_BYTES = {"cpu": 2**30, "cuda": 2**33}
_MOST_SLOTS = 128


def generate_in_slots(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[GeneratedText],
    settings: GenerationSettings,
    device: torch.device,
    batch_size: int,
) -> Iterator[Any]:
    """Continue prompts by `Decoder`, as many at a time as fit.

    Args:
        model: a causal language model that agrees with it.
        tokenizer: its tokenizer.
        prompts: what to continue.
        settings: of all of them.
        device: of the model.
        batch_size: prompts whose padding counts under `max_length`.

    Returns:
        As `generate`.
    """
    shared = shared_beginning([prompt.input_ids for prompt in prompts])
    texts = []
    for index, prompt in enumerate(prompts):
        budget = settings.max_new_tokens
        if settings.max_length is not None:
            first = index - index % batch_size
            budget = settings.max_length - max(each.length for each in prompts[first : first + batch_size])
        texts += [
            Text(
                list(prompt.input_ids),
                max(1, budget),
                guess=list(prompt.guess),
                seed=f"{settings.seed}/{prompt.key}/{sample}",
                # Samples of a prompt share all of it; else all prompts share what they begin with.
                shared=prompt.length - 1 if settings.samples > 1 else shared,
            )
            for sample in range(settings.samples)
        ]
    decoder = Decoder(
        model,
        device,
        end_tokens(tokenizer, model),
        _slots(model, max(len(text.prompt) + text.budget for text in texts), device),
        Sampling(settings.temperature, settings.top_p),
        _stopper(tokenizer, settings.stops),
    )
    decoded = (str(tokenizer.decode(text.generated, skip_special_tokens=True)) for text in decoder.run(texts))
    if settings.samples == 1:
        yield from decoded
        return
    for _, group in groupby(enumerate(decoded), key=lambda pair: pair[0] // settings.samples):
        yield [text for _, text in group]


def _slots(model: Any, longest: int, device: torch.device) -> int:
    """Texts whose keys and values fit into the memory set aside for them; more of them share one pass of weights."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", 1)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_per_token = 2 * config.num_hidden_layers * heads * width * next(model.parameters()).element_size()
    fitting = _CACHE_BYTES.get(device.type, _CACHE_BYTES["cuda"]) // (bytes_per_token * longest)
    return max(1, min(_MOST_SLOTS, fitting))


def _stopper(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> Callable[[list[int]], bool] | None:
    if not stops:
        return None
    # Every token has a byte at least, so a stop that has just come lies within that many.
    reach = max(len(stop.encode()) for stop in stops) + 4

    def stop(tokens: list[int]) -> bool:
        tail = str(tokenizer.decode(tokens[-reach:]))
        return any(each in tail for each in stops)

    return stop
