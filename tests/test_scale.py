"""The formula of `docs/scale.md` against shapes that go through the model's own code."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM

from unlearn_hf.methods import METHODS
from unlearn_hf.models.trained_parameters import prepare_model
from unlearn_hf.training.memory_estimate import estimate_memory

SCRIPTS = Path(__file__).parents[1] / "scripts"
SHAPES = [(6, 384, 384, 1024, 16000, True), (4, 512, 128, 1024, 2000, False), (8, 256, 64, 1536, 1000, True)]


def rows(count: int, tokens: int) -> list[dict[str, list[int]]]:
    draw = random.Random(1)
    ids = [[draw.randrange(3, 900) for _ in range(tokens)] for _ in range(count)]
    return [{"input_ids": row, "labels": [-100] * (tokens // 2) + row[tokens // 2 :]} for row in ids]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("rank", "half"), [(None, False), (None, True), (16, True)])
@pytest.mark.parametrize("method", ["graddiff", "ngdiff"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_formula_is_the_estimate(
    shape: tuple[Any, ...], method: str, rank: int | None, half: bool, checkpointing: bool,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from scale import Llama, peak_bytes

    of_shape = Llama(*shape)
    layers, width, keys, inner, vocabulary, tied = shape
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=keys // 64,
        tie_word_embeddings=tied,
    )
    options = {"bf16": half, "activation_checkpointing": checkpointing, "use_cpu": True, "packing": "true"}
    args = METHODS[method].config_class(str(tmp_path), per_device_train_batch_size=8, **options)
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
        adapter = None
        if rank is not None:
            model = model.to(torch.bfloat16)
            adapter = LoraConfig(task_type="CAUSAL_LM", r=rank, target_modules="all-linear")
        model = prepare_model(model, args, adapter)
    assert sum(each.numel() for each in model.parameters() if rank is None or each.requires_grad) == (
        of_shape.parameters if rank is None else of_shape.adapter(rank)
    )
    given = rows(8, 60)
    expected = estimate_memory(model, args, {"forget": given, "retain": given}, 1, METHODS[method]).total
    found = peak_bytes(
        of_shape,
        8 * 59,
        8 * 30,
        half=half,
        rank=rank,
        gradients=2 if method == "ngdiff" else 1,
        checkpointing=checkpointing,
        most_logits=2**25,
    )
    assert found == pytest.approx(expected, rel=0.15)


def test_the_page_has_the_numbers_of_the_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import scale

    page = (SCRIPTS.parent / "docs" / "scale.md").read_text()
    printed = []
    for ranks in ("8", "32"):
        monkeypatch.setattr("sys.argv", ["scale.py", "--ranks", ranks])
        scale.main()
        printed.append(capsys.readouterr().out.splitlines()[1:])
    for first, second in zip(*printed, strict=True):
        assert f"{first} {second.split(' | ')[-1]}" in page


def test_real_steps_are_held_against_the_formula_of_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import scale

    monkeypatch.setattr(scale, "MEASURED", ((1, 64, 200), (2, 128, 100)))
    monkeypatch.setattr("sys.argv", ["scale.py", "--measure", "graddiff", "eupmu", "--rounds", "1", "--steps", "2"])
    scale.main()
    cells = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [(row[0], row[1]) for row in cells[1:]] == [
        (shape, method) for shape in ("1 x 64, 200", "2 x 128, 100") for method in ("graddiff", "eupmu")
    ]
    for row in cells[1:]:
        products, rest, both, measured = map(float, row[2:6])
        assert both == pytest.approx(products + rest, abs=2e-3)
        assert measured > 0
