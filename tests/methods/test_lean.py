"""What only saves time or memory changes no result, for every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Mamba2Config, Mamba2ForCausalLM

from tests.small_runs import CASES, build_trainer, largest_difference, parameters
from unlearn_hf.likelihood import answers

ALL = list(CASES)


def run(case: str, folder: Path, **overrides: Any) -> tuple[dict[str, torch.Tensor], list[float], Any]:
    trainer = build_trainer(case, folder, **overrides)
    trainer.train()
    losses = [
        line[name] for line in trainer.state.log_history for name in ("forget_loss", "retain_loss") if name in line
    ]
    return parameters(trainer.model), losses, trainer


@pytest.mark.parametrize("case", ALL)
def test_packed_or_padded(case: str, tmp_path: Path) -> None:
    packed, losses, trainer = run(case, tmp_path, packing="true", activation_checkpointing=True)
    assert trainer.packed is True
    padded, expected, trainer = run(case, tmp_path, packing="false")
    assert trainer.packed is False
    assert largest_difference(packed, padded) < 2e-6
    assert losses == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)
    assert trainer.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("case", ["graddiff", "graddiff-kl", "npo", "ngdiff"])
def test_logits_in_chunks(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, expected, _ = run(case, tmp_path)
    original = answers.answer_likelihood
    chunked: list[int] = []

    def in_chunks(*arguments: Any, **options: Any) -> answers.AnswerLikelihood:
        chunked.append(1)
        return original(*arguments, **{**options, "largest_logits": 3 * 400})

    monkeypatch.setattr("unlearn_hf.training.contributions.answer_likelihood", in_chunks)
    parts, losses, _ = run(case, tmp_path)
    assert chunked
    assert largest_difference(whole, parts) < 2e-6
    assert losses == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True)


def test_a_model_that_mixes_packed_sequences_is_found_out(tmp_path: Path) -> None:
    config = Mamba2Config(
        vocab_size=400, hidden_size=32, num_hidden_layers=2, num_heads=8, head_dim=8, state_size=8, n_groups=1
    )
    torch.manual_seed(0)
    model = Mamba2ForCausalLM(config)
    trainer = build_trainer("graddiff", tmp_path, model=model, packing="true")
    with pytest.raises(ValueError, match="packing: 'true' is not possible, Mamba2ForCausalLM"):
        trainer.train()
    trainer = build_trainer("graddiff", tmp_path, model=model)
    trainer.train()
    assert trainer.packed is False


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_reference_elsewhere(dtype: str | None, tmp_path: Path) -> None:
    beside, _, _ = run("graddiff-kl", tmp_path)
    apart, _, trainer = run("graddiff-kl", tmp_path, reference_device="cpu", reference_dtype=dtype)
    assert trainer.reference is not None
    assert next(trainer.reference._copy.parameters()).dtype == (torch.bfloat16 if dtype else torch.float32)
    assert largest_difference(beside, apart) < (2e-3 if dtype else 1e-7)
    with pytest.raises(
        ValueError, match="reference_device: 'cpu' has no meaning for forget_loss 'ga' and retain_loss 'nll'"
    ):
        build_trainer("graddiff", tmp_path, reference_device="cpu")
