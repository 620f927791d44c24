"""Norms and cosine of the two gradients, by part of the model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from tests.small_runs import CASES, build_trainer, largest_difference, parameters
from unlearn_hf.gradients.geometry import GEOMETRY_FILE, norms_and_cosine, parameter_group
from unlearn_hf.training.unlearning import UnlearningTrainer


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("model.embed_tokens.weight", "embedding"),
        ("model.layers.3.self_attn.q_proj.weight", "layers.3.attention"),
        ("model.layers.3.self_attn.q_norm.weight", "layers.3.attention"),
        ("model.layers.12.mlp.down_proj.weight", "layers.12.mlp"),
        ("model.layers.0.post_attention_layernorm.weight", "layers.0.norm"),
        ("model.norm.weight", "norm"),
        ("lm_head.weight", "head"),
        ("base_model.model.model.layers.1.mlp.up_proj.lora_A.default.weight", "layers.1.mlp"),
        ("base_model.model.lm_head.lora_B.default.weight", "head"),
        ("transformer.wte.weight", "embedding"),
        ("transformer.h.5.attn.c_attn.bias", "layers.5.attention"),
        ("transformer.h.5.ln_2.weight", "layers.5.norm"),
        ("transformer.ln_f.weight", "norm"),
        ("gpt_neox.layers.2.attention.query_key_value.weight", "layers.2.attention"),
        ("embed_out.weight", "head"),
        ("model.decoder.layers.4.self_attn_layer_norm.weight", "layers.4.norm"),
        ("model.decoder.layers.4.fc1.weight", "layers.4.mlp"),
        ("model.layers.7.block_sparse_moe.gate.weight", "layers.7.mlp"),
        ("_orig_mod.model.layers.7.mixer.A_log", "layers.7.other"),
        ("score_bias", "other"),
    ],
)
def test_groups(name: str, group: str) -> None:
    assert parameter_group(name) == group


def test_norms_and_cosine_by_hand() -> None:
    found = norms_and_cosine(torch.tensor([[4.0, -3.0], [-3.0, 9.0]], dtype=torch.float64))
    assert found == {"forget_gradient_norm": 2.0, "retain_gradient_norm": 3.0, "gradient_cosine": -0.5}
    assert norms_and_cosine(torch.zeros(2, 2))["gradient_cosine"] == 0.0


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / GEOMETRY_FILE).read_text().splitlines()]


@pytest.mark.parametrize("case", list(CASES))
def test_looking_changes_nothing(case: str, tmp_path: Path) -> None:
    plain, watched = (build_trainer(case, tmp_path / view, log_gradient_geometry=view) for view in ("none", "layers"))
    for trainer in (plain, watched):
        trainer.train()
    assert largest_difference(parameters(plain.model), parameters(watched.model)) < 1e-6
    assert not (tmp_path / "none" / GEOMETRY_FILE).exists()
    logged = [line for line in watched.state.log_history if "gradient_cosine" in line]
    for line, written in zip(logged, lines(tmp_path / "layers"), strict=True):
        assert written["step"] == line["step"]
        for name in ("forget_gradient_norm", "retain_gradient_norm", "gradient_cosine", "forget_weight"):
            assert written[name] == pytest.approx(line[name], rel=1e-6)


def test_parts_against_gradients_of_their_own(tmp_path: Path) -> None:
    trainer = build_trainer("surgery", tmp_path, log_gradient_geometry="layers", max_steps=1)
    seen: dict[str, list[torch.Tensor]] = {}
    original = trainer.gradient_weights

    def gradient_weights(*arguments: Any) -> tuple[float, float]:
        assert trainer.gradients is not None
        for name, buffer in trainer.gradients._buffers.items():
            seen[name] = [gradient.clone() for gradient in buffer if gradient is not None]
        return original(*arguments)

    trainer.gradient_weights = gradient_weights  # type: ignore[method-assign]
    trainer.train()
    (line,) = lines(tmp_path)
    parts = [f"layers.{layer}.{part}" for layer in (0, 1) for part in ("attention", "mlp", "norm")]
    assert set(line["groups"]) == {"embedding", *parts, "norm", "head"}
    names = [name for name, _ in trainer.model.named_parameters()]
    for group, found in line["groups"].items():
        places = [index for index, name in enumerate(names) if parameter_group(name) == group]
        forget, retain = (torch.cat([seen[name][place].flatten() for place in places]) for name in seen)
        assert found["forget_gradient_norm"] == pytest.approx(forget.norm().item(), rel=1e-5)
        assert found["retain_gradient_norm"] == pytest.approx(retain.norm().item(), rel=1e-5)
        cosine = torch.cosine_similarity(forget, retain, dim=0).item()
        assert found["gradient_cosine"] == pytest.approx(cosine, abs=1e-5)
    squares = sum(found["forget_gradient_norm"] ** 2 for found in line["groups"].values())
    assert math.sqrt(squares) == pytest.approx(line["forget_gradient_norm"], rel=1e-6)


def test_only_logged_steps_and_only_what_is_trained(tmp_path: Path) -> None:
    trainer = build_trainer(
        "npo", tmp_path, log_gradient_geometry="layers", max_steps=4, logging_steps=2,
        peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
    )  # fmt: skip
    trainer.train()
    found = lines(tmp_path)
    assert [line["step"] for line in found] == [2, 4]
    assert set(found[0]["groups"]) == {"layers.0.attention", "layers.1.attention"}


def test_resumed_run_replaces_the_lines_after_its_checkpoint(tmp_path: Path) -> None:
    options: dict[str, Any] = {"log_gradient_geometry": "layers", "save_strategy": "steps", "save_steps": 2}
    trainer: UnlearningTrainer = build_trainer("ngdiff", tmp_path, max_steps=3, **options)
    trainer.train()
    before = lines(tmp_path)
    again = build_trainer("ngdiff", tmp_path, max_steps=4, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    assert lines(tmp_path)[:2] == before[:2]


def test_unknown_view(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"log_gradient_geometry: 'layer' is not known; choose one of none, total"):
        build_trainer("ngdiff", tmp_path, log_gradient_geometry="layer")
