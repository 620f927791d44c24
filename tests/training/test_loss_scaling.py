"""Half precision: losses scaled by a gradient scaler, overflows, and float32 where it matters."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from tests.small_runs import CASES, build_trainer, largest_difference, parameters, trained_part
from unlearn_hf.methods import METHODS
from unlearn_hf.training.optimizer_step import Losses
from unlearn_hf.training.unlearning import UnlearningTrainer

GRADIENT_LEVEL = [case for case, (method, _) in CASES.items() if METHODS[method].needs_gram]
GRADIENT_LEVEL += ["eupmu-log", "eupmu-step-fast"]  # these need the losses of the step
OTHERS = ["graddiff", "eupmu", "pdu", "famo"]


@pytest.fixture(autouse=True)
def precision_of_one_test() -> Iterator[None]:
    """accelerate keeps the precision in a state that all its objects share."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def scaled_trainer(case: str, folder: Path, scale: float, half: bool = False, **overrides: Any) -> UnlearningTrainer:
    """A trainer with a gradient scaler, which the Trainer itself makes on GPUs only."""
    trainer = build_trainer(case, folder, per_device_train_batch_size=2, gradient_accumulation_steps=2, **overrides)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    if half:  # for autocast, and for `clip_grad_norm_` to divide by the scale first
        trainer.accelerator.state._mixed_precision = "fp16"
        trainer.accelerator.native_amp = True
    return trainer


@pytest.mark.parametrize("case", [*GRADIENT_LEVEL, *OTHERS])
def test_scale_changes_neither_weights_nor_update(case: str, tmp_path: Path) -> None:
    results = []
    for scale in (2.0**10, 2.0**16):
        trainer = scaled_trainer(case, tmp_path, scale)
        trainer.train()
        lines = [line for line in trainer.state.log_history if "forget_weight" in line]
        results.append((parameters(trainer.model), [(line["forget_weight"], line["retain_weight"]) for line in lines]))
    plain = build_trainer(case, tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    plain.train()
    for found, weights in results:
        assert largest_difference(found, parameters(plain.model)) < 1e-6
        assert torch.allclose(torch.tensor(weights), torch.tensor(results[0][1]), rtol=1e-6)


@pytest.mark.parametrize("case", ["graddiff", "ngdiff"])
def test_overflow_without_end_stops_the_run(case: str, tmp_path: Path) -> None:
    trainer = scaled_trainer(case, tmp_path, 2.0**10, max_steps=30, num_train_epochs=30)
    before = parameters(trainer.model)
    original = trainer.objective_loss
    trainer.objective_loss = lambda *arguments: original(*arguments) * float("inf")  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="diverged at step 20"):
        trainer.train()
    assert largest_difference(before, parameters(trainer.model)) == 0.0


class Overflow:
    """Makes one gradient of one objective infinite in the second step."""

    def __init__(self, trainer: UnlearningTrainer, name: str) -> None:
        self.trainer, self.name = trainer, name
        self.original = trainer.objective_loss
        self.states: list[Any] = []
        self.parameters: list[dict[str, Tensor]] = []
        trainer.objective_loss = self.loss  # type: ignore[method-assign]
        original_step = trainer.optimizer_stepped

        def stepped() -> None:
            self.parameters.append(parameters(trainer.model))
            original_step()
            self.states.append(copy.deepcopy(trainer.method_state()))

        trainer.optimizer_stepped = stepped  # type: ignore[method-assign]

    def loss(self, model: Any, name: str, batch: Any, *others: Any) -> Tensor:
        loss = self.original(model, name, batch, *others)
        if name == self.name and self.trainer.state.global_step == 1 and loss.requires_grad:
            parameter = next(model.parameters())
            # the loss stays what it is, its gradient does not
            loss = loss + (parameter[0, 0] - parameter[0, 0].detach()) * 3e38
        return loss


@pytest.mark.parametrize("name", Losses._fields)
@pytest.mark.parametrize("case", [*GRADIENT_LEVEL, *OTHERS])
def test_step_that_overflows_is_skipped_and_changes_no_state(case: str, name: str, tmp_path: Path) -> None:
    both_count = {"initial_dual": 5.0} if hasattr(METHODS[CASES[case][0]].config_class, "initial_dual") else {}
    trainer = scaled_trainer(case, tmp_path, 2.0**10, **both_count)
    overflow = Overflow(trainer, name)
    trainer.train()
    first, second, third = overflow.parameters
    assert largest_difference(first, second) == 0.0
    assert repr(overflow.states[0]) == repr(overflow.states[1])
    assert trainer.accelerator.scaler.get_scale() == 2.0**9
    assert largest_difference(second, third) > 0
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


class Dtypes:
    """Notes the precisions in which losses, gradients and their Gram matrix come."""

    def __init__(self, trainer: UnlearningTrainer) -> None:
        self.seen: dict[str, set[torch.dtype]] = {"loss": set(), "gradient": set(), "gram": set(), "logits": set()}
        loss, weights = trainer.objective_loss, trainer.gradient_weights

        def objective_loss(*arguments: Any) -> Tensor:
            found = loss(*arguments)
            self.seen["loss"].add(found.dtype)
            return found

        def gradient_weights(gram: Tensor, losses: Losses) -> tuple[float, float]:
            assert trainer.gradients is not None
            self.seen["gram"].add(gram.dtype)
            for buffer in trainer.gradients._buffers.values():
                self.seen["gradient"] |= {gradient.dtype for gradient in buffer if gradient is not None}
            return weights(gram, losses)

        trainer.objective_loss = objective_loss  # type: ignore[method-assign]
        trainer.gradient_weights = gradient_weights  # type: ignore[method-assign]
        head = trainer.model.get_output_embeddings()
        head.register_forward_hook(lambda module, inputs, output: self.seen["logits"].add(output.dtype))


def check_float32_around(trainer: UnlearningTrainer, compute: torch.dtype) -> None:
    dtypes = Dtypes(trainer)
    trainer.train()
    assert dtypes.seen == {
        "loss": {torch.float32},
        "gradient": {torch.float32},
        "gram": {torch.float64},
        "logits": {compute},
    }
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())


@pytest.mark.parametrize("case", ["ngdiff", "surgery-cagrad"])
def test_bfloat16_computes_only_inside_the_model(case: str, tmp_path: Path) -> None:
    check_float32_around(build_trainer(case, tmp_path, bf16=True), torch.bfloat16)


@pytest.mark.parametrize("case", ["ngdiff", "surgery-cagrad"])
def test_float16_computes_only_inside_the_model(case: str, tmp_path: Path) -> None:
    exact = build_trainer(case, tmp_path)
    exact.train()
    trainer = scaled_trainer(case, tmp_path, 2.0**8, half=True)
    check_float32_around(trainer, torch.float16)
    assert trainer.accelerator.scaler.get_scale() == 2.0**8
    for line, rounded in zip(exact.state.log_history[:3], trainer.state.log_history[:3], strict=True):
        for name in ("forget_gradient_norm", "retain_gradient_norm", "forget_weight", "retain_weight"):
            assert rounded[name] == pytest.approx(line[name], rel=0.02)
    difference = largest_difference(parameters(exact.model), parameters(trainer.model))
    assert 0 < difference < 0.01


def one_step(case: str, folder: Path, clip: float, scale: float | None) -> tuple[dict[str, Tensor], float]:
    """The update of one step of plain descent, divided by the learning rate, and the logged norm."""
    options: dict[str, Any] = {"max_steps": 1, "max_grad_norm": clip}
    if scale is None:
        trainer = build_trainer(case, folder, per_device_train_batch_size=2, gradient_accumulation_steps=2, **options)
    else:
        trainer = scaled_trainer(case, folder, scale, half=True, **options)
        trainer.accelerator.prepare_model = lambda model, *_, **__: model  # float32 all the same
    before = parameters(trainer.model)
    trainer.train()
    after = parameters(trained_part(trainer.model))
    update = {name: (before[name] - after[name]) / trainer.args.learning_rate for name in before}
    return update, trainer.state.log_history[0]["grad_norm"]


@pytest.mark.parametrize(
    ("case", "scale"),
    [
        *((case, None) for case, (_, options) in CASES.items() if "optim" not in options),
        *((case, 2.0**12) for case in ("npo", "ngdiff", "eupmu-log")),
    ],
)
def test_clipping_shortens_the_combined_gradient(case: str, scale: float | None, tmp_path: Path) -> None:
    free, _ = one_step(case, tmp_path, 0.0, None)
    norm = torch.stack([update.norm() for update in free.values()]).norm().item()
    bound = 0.3 * norm
    clipped, logged = one_step(case, tmp_path, bound, scale)
    assert logged == pytest.approx(norm, rel=1e-4)
    expected = {name: update * bound / norm for name, update in free.items()}
    # an update is a difference of weights in float32, over the rate
    assert largest_difference(clipped, expected) < 1e-5 * norm + 5e-6
