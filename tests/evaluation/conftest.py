"""A tiny sequence classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from tests.tiny_models import build_tokenizer


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, large enough that texts get different shares; labels `clean` and `noise`."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=400,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        pad_token_id=1,
        id2label={0: "clean", 1: "noise"},
    )
    model = BertForSequenceClassification(config)
    for parameter in model.parameters():
        parameter.data.mul_(5.0)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder
