"""Continuations by vLLM, for GPUs: the model is written to a temporary folder and served from there.

Not yet measured on a GPU; `tests/evaluation/test_vllm_generation.py` compares its texts with those of transformers
where vLLM is installed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from unlearn_hf.common.extras import require

if TYPE_CHECKING:
    from unlearn_hf.evaluation.generation.prompts import GeneratedText, GenerationSettings


def generate_by_vllm(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[GeneratedText], settings: GenerationSettings
) -> Iterator[Any]:
    """Continue prompts; see `generation.generate`.

    Raises:
        ImportError: when vLLM is not installed.
        ValueError: for an adapter.
    """
    require("vllm", "vllm", "generation_backend vllm")
    if hasattr(model, "peft_config"):
        raise ValueError("generation_backend: 'vllm' takes whole models; merge the adapter first, or use 'auto'.")
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        served = LLM(model=folder, dtype=str(next(model.parameters()).dtype).removeprefix("torch."))
        sampling = SamplingParams(
            n=settings.samples,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_new_tokens,
            seed=settings.seed,
            stop=list(settings.stops) or None,
            include_stop_str_in_output=True,
        )
        outputs = served.generate([{"prompt_token_ids": list(each.input_ids)} for each in prompts], sampling)
    for output in outputs:
        texts = [str(each.text) for each in output.outputs]
        yield texts if settings.samples > 1 else texts[0]
