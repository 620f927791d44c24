"""A retain loss that is zero before unlearning has a gradient of zero, or of rounding noise, at the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_runs import build_trainer, parameters
from unlearn_hf.gradients.weightings import mgda, normalized_sum, torchjd_weighting, without_noise
from unlearn_hf.methods import EUPMUConfig

NORMALISING = {
    "ngdiff": ("ngdiff", {}),
    "mgda": ("surgery", {"rule": "mgda"}),
    "cagrad": ("surgery", {"rule": "cagrad"}),
    "rule ngdiff": ("surgery", {"rule": "ngdiff"}),
    "pcgrad": ("surgery", {"rule": "pcgrad"}),
    "torchjd": ("surgery", {"rule": "torchjd:MGDA"}),
    "gru": ("gru", {}),
    "gdr-gma": ("gdr-gma", {}),
}
PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float32 padded": {"packing": "false"},
    "bfloat16": {"bf16": True},
    "bfloat16 padded": {"bf16": True, "packing": "false"},
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NORMALISING)
def test_the_first_step_follows_the_forget_gradient(name: str, precision: str, tmp_path: Path) -> None:
    """To first order it is a step along the forget gradient alone, of the length that the method gives that."""
    if name == "torchjd":
        pytest.importorskip("torchjd", reason="TorchJD is not installed")
    case, options = NORMALISING[name]
    options = {**options, "retain_loss": "kl", "max_steps": 1, "learning_rate": 1.0, **PRECISIONS[precision]}
    steps = {}
    for method, chosen in ((case, options), ("graddiff", options | {"retain_weight": 0.0})):
        chosen = {key: value for key, value in chosen.items() if method != "graddiff" or key != "rule"}
        trainer = build_trainer(method, tmp_path, forget_loss="npo", **chosen)
        before = parameters(trainer.model)
        trainer.train()
        after = parameters(trainer.model)
        steps[method] = torch.cat([(after[key] - before[key]).reshape(-1) for key in before]).double()
        if method == case:
            line = trainer.state.log_history[0]
            assert line["retain_gradient_norm"] < 1e-3 * line["forget_gradient_norm"]
            assert abs(line["retain_weight"]) <= 2.0, line
    moved, forget = steps.values()
    assert moved.norm() > 0.1 * min(1.0, forget.norm().item())
    assert torch.nn.functional.cosine_similarity(moved, forget, dim=0) > 0.999


@pytest.mark.parametrize("options", [{}, {"bf16": True}])
def test_the_retain_gradient_takes_part_once_it_is_more_than_noise(options: dict[str, Any], tmp_path: Path) -> None:
    trainer = build_trainer("ngdiff", tmp_path, retain_loss="kl", forget_loss="npo", **options)
    trainer.train()
    weights = [line["retain_weight"] for line in trainer.state.log_history if "retain_weight" in line]
    assert weights[0] == 0.0
    assert all(weight > 0 for weight in weights[1:])


def test_noise_counts_as_zero_and_nothing_else_does() -> None:
    gram = torch.tensor([[4.0, 1e-4], [1e-4, 1e-8]], dtype=torch.float64)
    assert torch.equal(without_noise(gram, 1e-5), gram)
    kept = without_noise(gram, 1e-4)
    assert kept.tolist() == [[4.0, 0.0], [0.0, 0.0]]
    assert normalized_sum(kept) == (0.5, 0.0)
    assert mgda(kept) == (1.0, 0.0)
    parts = torch.stack([gram, 2 * gram])
    assert torch.equal(without_noise(parts, 1e-5), parts)
    assert without_noise(parts, 1e-4)[1].tolist() == [[8.0, 0.0], [0.0, 0.0]]


def test_torchjd_moves_where_the_retain_gradient_is_zero() -> None:
    pytest.importorskip("torchjd", reason="TorchJD is not installed")
    assert torchjd_weighting("MGDA")(torch.tensor([[4.0, 0.0], [0.0, 0.0]])) == (1.0, 0.0)


def test_the_logarithm_of_a_divergence_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^retain_loss: 'kl' is zero at the start, and scalarization 'log'"):
        EUPMUConfig(output_dir=str(tmp_path), scalarization="log", retain_loss="kl", dual_signal="raw")
