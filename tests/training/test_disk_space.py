"""A disk that is too small is noticed before training, and one that fills up costs as little as possible."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from peft import LoraConfig
from transformers import AutoModelForCausalLM, TrainerCallback

from tests.small_runs import build_trainer, largest_difference, parameters
from tests.tiny_models import build_model
from unlearn_hf.training import disk_space
from unlearn_hf.training.checkpoints import checkpoints, damage

STEPS: dict[str, Any] = {
    "max_steps": 4,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": 1,
    "optim": "adamw_torch",
}
MIB = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a file system: NOT tested on a full disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Fill(TrainerCallback):
    """Takes the room on a disk away after some step, but for `left` bytes."""

    def __init__(self, folder: Path, step: int, left: int = 0) -> None:
        self.folder, self.step, self.left = folder, step, left

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            fill(self.folder, self.left)


def fill(folder: Path, left: int = 0) -> None:
    found = os.statvfs(folder)
    (folder / "filler").write_bytes(bytes(max(0, found.f_bavail * found.f_frsize - left)))


def test_a_full_disk_leaves_the_checkpoint_before_it(small_disk: Path) -> None:
    run = small_disk / "run"
    whole = build_trainer("npo", small_disk.parent / "whole", model=build_model(dropout=0.1), **STEPS)
    whole.train()
    trainer = build_trainer("npo", run, model=build_model(dropout=0.1), callbacks=[Fill(small_disk, 3)], **STEPS)
    with pytest.raises(OSError, match=r"for '.*checkpoint-3'; after making room, .* resumed from checkpoint-2"):
        trainer.train()
    assert [path.name for path in checkpoints(run)] == ["checkpoint-2"]
    assert trainer.args.save_total_limit == 1
    (small_disk / "filler").unlink()
    again = build_trainer("npo", run, model=build_model(dropout=0.1), **STEPS)
    again.train(resume_from_checkpoint=True)
    assert largest_difference(parameters(whole.model), parameters(again.model)) == 0.0


@pytest.mark.parametrize("left", [0, 4096, 200_000, 450_000])
def test_weights_of_a_finished_training_are_kept(left: int, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever writing the last checkpoint fails: in the weights, in the optimizer's state."""
    elsewhere = small_disk.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    trainer = build_trainer("npo", small_disk / "run", callbacks=[Fill(small_disk, 4, left)], **STEPS)
    with pytest.raises(OSError, match=r"weights after step 4 are in '(.*)'; after making room") as problem:
        trainer.train()
    where = str(problem.value).split("'")[3]
    saved = AutoModelForCausalLM.from_pretrained(where)
    assert largest_difference(parameters(trainer.model), parameters(saved)) == 0.0
    assert damage(small_disk / "run" / "checkpoint-3") is None


def test_weights_that_do_not_fit_go_elsewhere(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = small_disk.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    trainer = build_trainer("npo", small_disk / "run", model=build_model())
    fill(small_disk, left=50_000)
    with pytest.raises(OSError, match=r"has no room for the weights; they are in '(.*)'") as problem:
        trainer.save_model()
    saved = AutoModelForCausalLM.from_pretrained(str(problem.value).split("'")[3])
    assert largest_difference(parameters(trainer.model), parameters(saved)) == 0.0
    assert list((small_disk / "run").iterdir()) == []  # nothing half written


def test_older_checkpoints_make_way_for_the_weights(small_disk: Path) -> None:
    trainer = build_trainer("npo", small_disk / "run", **STEPS | {"save_total_limit": None, "max_steps": 3})
    trainer.train()
    fill(small_disk)
    trainer.save_model()
    assert [path.name for path in checkpoints(small_disk / "run")] == ["checkpoint-3"]
    saved = AutoModelForCausalLM.from_pretrained(small_disk / "run")
    assert largest_difference(parameters(trainer.model), parameters(saved)) == 0.0


def test_no_room_anywhere_is_said(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    trainer = build_trainer("npo", small_disk / "run", **STEPS | {"max_steps": 1})
    trainer.train()
    fill(small_disk)
    with pytest.raises(OSError, match=r"nor has the temporary folder; the newest checkpoint that is whole is '.*-1'"):
        trainer.save_model()


@pytest.mark.parametrize(
    ("options", "adapter", "expected"),
    [
        # one checkpoint and the next: weights and two numbers for each parameter
        ({}, False, 2 * 3),
        ({"save_total_limit": None}, False, 4 * 3 + 1),
        ({"save_total_limit": 3}, False, 4 * 3),
        ({"save_steps": 4}, False, 3 + 1),
        ({"save_steps": 0.5}, False, 2 * 3),
        ({"optim": "sgd"}, False, 2 * 1),
        ({"save_only_model": True}, False, 2 * 1),
        ({}, True, 2 * 3),
    ],
)
def test_what_is_needed(
    options: dict[str, Any], adapter: bool, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear") if adapter else None
    trainer = build_trainer("npo", tmp_path, peft_config=peft, **STEPS | options)
    trained = sum(each.numel() for each in trainer.model.parameters() if each.requires_grad)
    needed = 1.05 * expected * 4 * trained
    for free, fits in ((needed + 1, True), (needed - 2, False)):
        monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=int(free)))
        if fits:
            disk_space.check_space(trainer)
        else:
            with pytest.raises(ValueError, match=r"output_dir: .* has room for .*, and this run writes up to"):
                trainer.train()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("drop_last", "accumulation", "planned"), [(False, 1, (4, 8)), (True, 1, (3, 6)), (True, 8, (1, 2))]
)
def test_planned_steps_are_those_of_the_loop(
    drop_last: bool, accumulation: int, planned: tuple[int, int], tmp_path: Path
) -> None:
    trainer = build_trainer(
        "npo",
        tmp_path,
        forget=10,
        max_steps=-1,
        num_train_epochs=2,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=accumulation,
        dataloader_drop_last=drop_last,
    )
    rows = len(trainer.train_dataset)
    assert disk_space.planned_steps(trainer.args, rows) == planned
    trainer.train()
    assert trainer.state.global_step == planned[1]


def test_two_models_at_the_end_need_room_for_two(tmp_path: Path) -> None:
    one, two = (build_trainer(name, tmp_path, **STEPS | {"save_strategy": "no"}) for name in ("npo", "whp"))
    assert disk_space.space_needed(two) == pytest.approx(2 * disk_space.space_needed(one), abs=1)


def test_what_is_written_is_what_was_estimated(tmp_path: Path) -> None:
    trainer = build_trainer("npo", tmp_path, **STEPS)
    trainer.train()
    written = sum(path.stat().st_size for path in (tmp_path / "checkpoint-4").iterdir() if path.suffix != ".json")
    estimate = disk_space._weight_bytes(trainer.model) + disk_space.optimizer_bytes(
        trainer.args, trainer.model.parameters()
    )
    assert estimate == pytest.approx(written, rel=0.15)  # of so small a model


def test_a_run_that_saves_nothing_is_warned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.warns(UserWarning, match="when its weights are saved; make room"):
        build_trainer("npo", tmp_path, max_steps=1).train()
