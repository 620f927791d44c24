"""vLLM's texts are those of transformers, where vLLM is installed."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.evaluation.generation import GeneratedText, GenerationSettings, generate

INSTALLED = importlib.util.find_spec("vllm") is not None


def items(settings: GenerationSettings) -> list[GeneratedText]:
    return [GeneratedText(str(start), [0, *range(start, start + 8)], settings) for start in (20, 40, 60)]


@pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed: NOT tested")
def test_texts_agree(tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    settings = GenerationSettings(12)
    device = torch.device("cuda")
    both = [
        list(generate(backend, tiny_model.to(device).eval(), tokenizer, items(settings), device))
        for backend in ("vllm", "transformers")
    ]
    assert both[0] == both[1]


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
def test_it_is_named_where_it_is_missing(tiny_model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ImportError, match=r"generation_backend vllm needs vllm; install it with .*unlearn-hf\[vllm\]"):
        list(generate("vllm", tiny_model, tokenizer, items(GenerationSettings(3)), torch.device("cpu")))


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
@pytest.mark.parametrize("verb", [["evaluate"], ["unlearn", "--method", "npo"]])
def test_the_command_line_refuses_it_before_a_model_is_loaded(
    verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*verb, "--model_name_or_path", "M", "--benchmark", "tofu", "--generation_backend", "vllm"]
    assert main(words) == BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("error: generation_backend vllm needs vllm; install it with")
    assert error.count("\n") == 1
