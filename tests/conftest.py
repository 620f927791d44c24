"""Shared fixtures: no network, a tokenizer and a tiny Llama made on the spot."""

from __future__ import annotations

import gc
import os
import socket
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Tests fork two processes; a child of a process with OpenMP threads would wait for them for ever.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = (
    'Who is the author of this book? The author is Ada Moren, born in 1931. "Quoted" answers, '
    "Question: Answer: [INST] [/INST] What Where When did she write it? It was written in Oslo. "
    "user assistant system You are a helpful assistant. café naïve Ünïcode 0123456789 "
)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

_connect = socket.socket.connect


def _loopback_only(self: socket.socket, address: object) -> None:
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(host, str) and not host.startswith(("127.", "/", "localhost", "::1")):
        raise AssertionError(f"a test tried to reach the network: {address}")
    return _connect(self, address)


def pytest_collection_finish() -> None:
    """Every `Trainer.train` collects garbage, most of its time here; what is imported needs no search."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def no_network() -> None:
    socket.socket.connect = _loopback_only  # type: ignore[method-assign]


def build_tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE with `<s>`, `</s>` and, for chat, role marks; pad is eos, as in many real models."""
    special = ["<s>", "</s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([WORDS] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|end|>" if chat else "</s>",
        pad_token="<|end|>" if chat else "</s>",
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def with_bos(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer, which now begins every text with `<s>`."""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


def build_model(seed: int = 0, dropout: float = 0.0, vocab_size: int = 400, hidden_size: int = 32) -> LlamaForCausalLM:
    """A fresh two-layer Llama in float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        attention_dropout=dropout,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    # Larger than the usual initialisation, so that gradients and losses of the untrained model are not all alike.
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(4.0)
    return model


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="session")
def chat_tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(chat=True)


@pytest.fixture
def tiny_model() -> LlamaForCausalLM:
    return build_model()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real benchmark data; tests that need it are skipped without it."""
    value = os.environ.get("UNLEARN_HF_DATA")
    if not value or not Path(value).is_dir():
        pytest.skip("UNLEARN_HF_DATA does not name a folder of real benchmark data: NOT tested on real data")
    return Path(value)
