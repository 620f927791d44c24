"""The checks of the invariances find deliberately wrong implementations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor

from tests.methods import invariances
from tests.small_runs import CASES
from unlearn_hf.gradients.buffers import GradientBuffers
from unlearn_hf.methods import EUPMUTrainer
from unlearn_hf.models import trained_parameters
from unlearn_hf.training import contributions, finetuning, optimizer_step
from unlearn_hf.training.automatic_learning_rate import AutomaticLearningRate
from unlearn_hf.training.unlearning import UnlearningTrainer

Patch = pytest.MonkeyPatch


def _mean_per_micro_batch(patch: Patch) -> None:
    """Each micro-batch divides by its own count, and the means are averaged."""
    original = UnlearningTrainer.objective_loss

    def loss(self: UnlearningTrainer, model: Any, name: str, batch: Any, *others: Any) -> Tensor:
        assert self.window is not None
        kept, batches = self.window.totals, self.window.batches
        own = optimizer_step.count_totals([batch], self.accelerator)
        self.window.totals = own
        try:
            return original(self, model, name, batch, *others) / len(batches)
        finally:
            self.window.totals = kept

    patch.setattr(UnlearningTrainer, "objective_loss", loss)


def _normalized_per_micro_batch(patch: Patch) -> None:
    """Each micro-batch's gradients get length one before they are added up."""
    original = GradientBuffers.collect

    @contextlib.contextmanager
    def collect(self: GradientBuffers, name: str) -> Iterator[None]:
        before = self._buffers[name]
        self._buffers[name] = [None] * len(self.parameters)
        with original(self, name):
            yield
        new = [gradient for gradient in self._buffers[name] if gradient is not None]
        length = torch.stack([gradient.norm() for gradient in new]).norm()
        self._buffers[name] = [
            gradient if old is None else gradient / length + old
            for gradient, old in zip(self._buffers[name], before, strict=True)
        ]

    patch.setattr(GradientBuffers, "collect", collect)


def _last_micro_batch_only(patch: Patch) -> None:
    """The buffer is overwritten instead of added to."""
    original = GradientBuffers.collect

    @contextlib.contextmanager
    def collect(self: GradientBuffers, name: str) -> Iterator[None]:
        self._buffers[name] = [None] * len(self.parameters)
        with original(self, name):
            yield

    patch.setattr(GradientBuffers, "collect", collect)


def _dual_moved_by_one_micro_batch(patch: Patch) -> None:
    """The retain loss after the step is that of the first micro-batch alone."""
    original = UnlearningTrainer.loss_again

    def again(self: UnlearningTrainer, name: str) -> float:
        assert self.window is not None
        kept, self.window.batches = self.window.batches, self.window.batches[:1]
        try:
            return original(self, name)
        finally:
            self.window.batches = kept

    patch.setattr(UnlearningTrainer, "loss_again", again)


@pytest.mark.parametrize(
    ("case", "variant"),
    [
        ("graddiff", _mean_per_micro_batch),
        ("ngdiff", _mean_per_micro_batch),
        ("eupmu", _mean_per_micro_batch),
        ("ngdiff", _normalized_per_micro_batch),
        ("surgery", _last_micro_batch_only),
        ("eupmu", _dual_moved_by_one_micro_batch),
    ],
)
def test_accumulation(case: str, variant: Callable[[Patch], None], tmp_path: Path, monkeypatch: Patch) -> None:
    variant(monkeypatch)
    with pytest.raises(AssertionError):
        invariances.check_accumulation(case, tmp_path)


def _gram_of_one_rank(patch: Patch) -> None:
    """Gradients are averaged over ranks, but only after each rank has chosen weights by its own Gram matrix."""
    step, combine = UnlearningTrainer.training_step, GradientBuffers.combine

    def without_reduction(self: UnlearningTrainer, model: Any, *arguments: Any) -> Tensor:
        with getattr(model, "no_sync", contextlib.nullcontext)():
            return step(self, model, *arguments)

    def reduce_late(self: GradientBuffers, weights: Any) -> None:
        if torch.distributed.is_initialized():
            for gradient in (entry for buffer in self._buffers.values() for entry in buffer):
                torch.distributed.all_reduce(gradient)
                gradient /= torch.distributed.get_world_size()
        combine(self, weights)

    patch.setattr(UnlearningTrainer, "training_step", without_reduction)
    patch.setattr(GradientBuffers, "combine", reduce_late)


def _totals_of_one_rank(patch: Patch) -> None:
    """Losses are divided by the counts of the rank itself."""

    class Alone:
        num_processes = 1

    original = optimizer_step.count_totals
    patch.setattr(finetuning, "count_totals", lambda batches, accelerator: original(batches, Alone()))


def _loss_of_one_rank(patch: Patch) -> None:
    """Every rank moves its dual variable by its own losses."""
    patch.setattr(optimizer_step.Window, "reduced", _own_losses)
    original = UnlearningTrainer.loss_again

    def again(self: UnlearningTrainer, name: str) -> float:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self.accelerator, "reduce", lambda value, *_: value)
            return original(self, name)

    patch.setattr(UnlearningTrainer, "loss_again", again)


def _own_losses(self: optimizer_step.Window, accelerator: Any, norm: Any = None) -> tuple[Any, float]:
    return optimizer_step.Losses(*(self.losses[name].item() for name in optimizer_step.Losses._fields)), 0.0


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("case", "variant"),
    [("ngdiff", _gram_of_one_rank), ("npo", _totals_of_one_rank), ("eupmu-log", _loss_of_one_rank)],
)
def test_two_ranks(case: str, variant: Callable[[Patch], None], tmp_path: Path, monkeypatch: Patch) -> None:
    variant(monkeypatch)
    with pytest.raises(AssertionError):
        invariances.check_two_ranks([case], tmp_path)


def test_checkpointing_with_other_dropout_in_the_second_forward_pass(tmp_path: Path) -> None:
    options = {"activation_checkpointing_kwargs": {"use_reentrant": False, "preserve_rng_state": False}}
    with pytest.raises(AssertionError):
        invariances.check_activation_checkpointing("ngdiff", tmp_path, **options)


@pytest.mark.parametrize("case", ["graddiff", "npo", "eupmu"])
def test_padding_counted_as_tokens(case: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(
        optimizer_step,
        "label_counts",
        lambda labels: torch.full((labels.shape[0],), labels.shape[1], dtype=torch.long),
    )
    if case == "npo":  # counts sequences on the forget side; get the answers themselves wrong
        original = contributions.answer_likelihood

        def padded(model: Any, batch: dict[str, Tensor], **options: Any) -> Any:
            labels = batch["labels"].clone()
            labels[batch["attention_mask"] == 0] = 1
            return original(model, {**batch, "labels": labels}, **options)

        monkeypatch.setattr(contributions, "answer_likelihood", padded)
    with pytest.raises(AssertionError):
        invariances.check_padding(case, tmp_path)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("eupmu")])
def test_state_of_the_method_not_restored(case: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(EUPMUTrainer, "load_method_state", lambda self, state: None)
    with pytest.raises(AssertionError):
        invariances.check_resuming(case, tmp_path)


def test_automatic_learning_rate_not_restored(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(AutomaticLearningRate, "load_state_dict", lambda self, state: None)
    with pytest.raises(AssertionError):
        invariances.check_resuming("ngdiff-autolr", tmp_path)


def test_base_trained_beside_the_adapter(tmp_path: Path, monkeypatch: Patch) -> None:
    original = trained_parameters.prepare_model

    def everything(model: Any, *arguments: Any) -> Any:
        prepared = original(model, *arguments)
        for parameter in prepared.parameters():
            parameter.requires_grad_(True)
        return prepared

    monkeypatch.setattr(finetuning, "prepare_model", everything)
    with pytest.raises(AssertionError):
        invariances.check_adapter_alone_is_trained("ngdiff", tmp_path)
