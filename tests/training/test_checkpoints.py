"""A damaged checkpoint is noticed, and a run goes on from the newest intact one, or says why it cannot."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import debug_launcher

from tests.small_runs import build_trainer, largest_difference, parameters
from tests.tiny_models import build_model
from unlearn_hf.training import checkpoints as module
from unlearn_hf.training.checkpoints import (
    MANIFEST,
    METHOD_STATE_FILE,
    checkpoints,
    damage,
    drop_checkpoints,
    finish_checkpoint,
    newest_complete_checkpoint,
)

STEPS: dict[str, Any] = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}
NEEDED = (METHOD_STATE_FILE,)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    build_trainer("npo", folder, **STEPS).train()
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A folder with the checkpoints 2 and 4."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def zero(path: Path) -> None:
    """What a full disk or a crash of the machine leaves: the size is right, the end was never written."""
    content = path.read_bytes()
    path.write_bytes(content[:-100] + bytes(100))


def unlink(path: Path) -> None:
    path.unlink()


FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", METHOD_STATE_FILE, "trainer_state.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", [cut, zero, unlink])
@pytest.mark.parametrize("manifest", [True, False])
def test_damage_is_noticed(manifest: bool, harm: Callable[[Path], None], file: str, run: Path) -> None:
    newest = run / "checkpoint-4"
    if not manifest:  # as version 0.1 wrote it; there, zeros inside a file of tensors do not show
        if harm is zero:
            harm = cut
        for path in run.glob(f"*/{MANIFEST}"):
            path.unlink()
    assert newest_complete_checkpoint(run, NEEDED) == newest
    harm(newest / file)
    with pytest.warns(
        UserWarning, match=rf"checkpoint-4 is damaged \(.*({file}|it has no).*\): going on from checkpoint-2"
    ):
        assert newest_complete_checkpoint(run, NEEDED) == run / "checkpoint-2"
    harm(run / "checkpoint-2" / file)
    with pytest.raises(ValueError, match=r"no complete checkpoint \(checkpoint-4 is .*; checkpoint-2 is damaged"):
        newest_complete_checkpoint(run, NEEDED)
    with pytest.raises(ValueError, match=r"is no checkpoint to resume from, because"):
        build_trainer("npo", run, **STEPS).train(resume_from_checkpoint=str(newest))


def test_a_run_that_falls_back_ends_like_the_uninterrupted_one(run: Path, finished: Path) -> None:
    (run / "checkpoint-4" / "optimizer.pt").unlink()
    whole = build_trainer("npo", run.parent / "whole", **STEPS)
    whole.train()
    again = build_trainer("npo", run, **STEPS)
    with pytest.warns(UserWarning, match="going on from checkpoint-2, which is intact"):
        again.train(resume_from_checkpoint=True)
    assert largest_difference(parameters(whole.model), parameters(again.model)) == 0.0
    assert damage(run / "checkpoint-4", NEEDED) is None  # written anew


def test_a_checkpoint_of_weights_alone_is_not_resumed_from(tmp_path: Path) -> None:
    build_trainer("graddiff", tmp_path, **STEPS, save_only_model=True).train()
    with pytest.raises(ValueError, match=r"no state of the optimizer \(save_only_model leaves it out\)"):
        newest_complete_checkpoint(tmp_path)


def test_a_checkpoint_that_was_never_finished_is_none(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it is written again after a fallback: old files that lie there count for nothing."""

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    unlink(run / "checkpoint-4" / "scheduler.pt")
    monkeypatch.setattr("unlearn_hf.training.checkpointing_trainer.finish_checkpoint", killed)
    again = build_trainer("npo", run, **STEPS)
    with pytest.warns(UserWarning, match="going on from"), pytest.raises(KeyboardInterrupt):
        again.train(resume_from_checkpoint=True)
    assert damage(run / "checkpoint-4") == "it was not written to its end"
    assert damage(run / "checkpoint-2") is None  # not deleted for one that is not whole


def test_large_files_are_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 100)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)) * 400)
    first = module._hash(path)
    for place in (0, -1):
        content = bytearray(bytes(range(250)) * 400)
        content[place] ^= 1
        path.write_bytes(content)
        assert module._hash(path) != first
    path.write_bytes(bytes(range(250)) * 200 + bytes(50_000))  # zeros from the middle on
    assert module._hash(path) != first


@pytest.mark.parametrize(
    ("limit", "best", "kept"),
    [
        (None, None, [2, 4, 6, 9]),
        (1, None, [6]),
        (2, None, [4, 6]),
        (1, 2, [2, 6]),
        (2, 6, [4, 6]),
        (3, 2, [2, 4, 6]),
        (9, None, [2, 4, 6, 9]),
    ],
)
def test_which_checkpoints_are_kept(limit: int | None, best: int | None, kept: list[int], tmp_path: Path) -> None:
    """Step 9 is of a run that was given up for an earlier checkpoint."""
    for step in (2, 4, 6, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
    drop_checkpoints(tmp_path / "checkpoint-6", limit, str(tmp_path / f"checkpoint-{best}") if best else None)
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint-{step}" for step in kept]


def test_default_runs_save_five_times_and_keep_one(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    trainer = build_trainer("npo", tmp_path, max_steps=10, save_strategy="steps", save_total_limit=1)
    assert trainer.args.save_steps == 0.2
    saved = trainer.checkpoint_saved

    def watch() -> None:
        saved()
        seen.append([path.name for path in checkpoints(tmp_path)])

    trainer.checkpoint_saved = watch  # type: ignore[method-assign]
    trainer.train()
    assert seen == [[f"checkpoint-{step}"] for step in (2, 4, 6, 8, 10)]
    assert trainer.args.save_total_limit == 1


def test_best_checkpoint_needs_no_other_options(tmp_path: Path) -> None:
    options = {"eval_strategy": "steps", "load_best_model_at_end": True, "metric_for_best_model": "loss"}
    assert build_trainer("npo", tmp_path, save_strategy="steps", eval_steps=3, **options).args.save_steps == 3


def _two_ranks(folder: str) -> None:
    build_trainer("npo", Path(folder), model=build_model(dropout=0.1), **STEPS).train()
    again = build_trainer("npo", Path(folder), model=build_model(dropout=0.1), **STEPS)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4
    if again.is_world_process_zero():
        torch.save(parameters(again.model), Path(folder) / "again.pt")


def test_every_rank_has_its_part_in_the_manifest(tmp_path: Path) -> None:
    debug_launcher(_two_ranks, args=(str(tmp_path),), num_processes=2)
    manifest = json.loads((tmp_path / "checkpoint-4" / MANIFEST).read_text())
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt"} <= manifest["files"].keys()
    (tmp_path / "checkpoint-4" / "rng_state_1.pth").unlink()
    assert damage(tmp_path / "checkpoint-4") == "rng_state_1.pth is missing"


def test_shards_are_counted_where_there_is_no_manifest(run: Path) -> None:
    newest = run / "checkpoint-4"
    (newest / MANIFEST).unlink()
    (newest / "model.safetensors").rename(newest / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (newest / "model.safetensors.index.json").write_text(json.dumps(index))
    assert damage(newest) == "model-00002-of-00002.safetensors is missing"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert newest_complete_checkpoint(run) == run / "checkpoint-2"


def test_files_that_others_add_later_are_no_damage(run: Path) -> None:
    (run / "checkpoint-4" / "notes.txt").write_text("mine")
    assert damage(run / "checkpoint-4") is None
    finish_checkpoint(run / "checkpoint-4")
    assert "notes.txt" in json.loads((run / "checkpoint-4" / MANIFEST).read_text())["files"]
