"""Shared fixtures: no network, tokenizers and a tiny Llama, which `tests.tiny_models` builds."""

from __future__ import annotations

import gc
import importlib.util
import os
import socket
from pathlib import Path
from types import ModuleType

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Tests fork two processes; a child of a process with OpenMP threads would wait for them for ever.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tests.tiny_models import build_model, build_tokenizer

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


def load_script(name: str) -> ModuleType:
    """A file of `scripts/` as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
