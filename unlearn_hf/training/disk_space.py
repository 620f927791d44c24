"""Room on the disk: what a run will write, and what to do when there is none left."""

from __future__ import annotations

import errno
import math
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unlearn_hf.common.terminal import readable_size
from unlearn_hf.training.checkpoints import checkpoints

# Rust's, of safetensors, and those of torch's writer of zip files, which knows no reasons.
_FULL = ("No space left", "os error 28", "inline_container", "iostream error")
_SPARE = 1.05  # tokenizer, logs, samples, state of the method


def is_disk_full(problem: BaseException | None) -> bool:
    """Whether a write failed for want of room; libraries in other languages say so in their own words."""
    while problem is not None:
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(problem) for words in _FULL):
            return True
        problem = problem.__cause__ or problem.__context__
    return False


def check_space(trainer: Any) -> None:
    """Refuse a run whose checkpoints will not fit beside what is on the disk already.

    Counted are weights and optimizer state of every checkpoint that lies there at once (an older one is deleted after
    the newer is whole), and the weights at the end.

    Args:
        trainer: ready to train; of `args`, `model` and `train_dataset` the sizes are read.

    Raises:
        ValueError: saying how much is needed, how much there is, and what needs less.
    """
    folder = Path(str(trainer.args.output_dir))
    weights, state, saves, kept = _weights_state_saves_kept(trainer)
    needed = space_needed(trainer)
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    old = sum(path.stat().st_size for each in checkpoints(folder) for path in each.rglob("*") if path.is_file())
    free = shutil.disk_usage(there).free + old  # they make way for new ones
    if needed <= free:
        return
    found = (
        f"output_dir: {str(folder)!r} has room for {readable_size(free)}, and this run writes up to "
        f"{readable_size(needed)}"
    )
    if saves == 0:
        warnings.warn(f"{found} when its weights are saved; make room.", stacklevel=2)
        return
    raise ValueError(
        f"{found} ({readable_size(weights)} of weights and {readable_size(state)} of optimizer state in each of "
        f"{min(saves, kept + 1)} checkpoints at once); make room, name another output_dir, or set save_strategy "
        f"to 'no' ({readable_size(weights)}, but a killed run cannot be resumed)."
    )


def space_needed(trainer: Any) -> int:
    """The most bytes that checkpoints and the weights at the end take together."""
    weights, state, saves, kept = _weights_state_saves_kept(trainer)
    at_the_end = kept * (weights + state) + getattr(trainer, "models_saved", 1) * weights
    return math.ceil(_SPARE * max(min(saves, kept + 1) * (weights + state), at_the_end))


def _weights_state_saves_kept(trainer: Any) -> tuple[int, int, int, int]:
    args = trainer.args
    weights = _weight_bytes(trainer.model)
    state = 0 if args.save_only_model else optimizer_bytes(args, trainer.model.parameters())
    saves = _saves(trainer)
    return weights, state, saves, min(saves, args.save_total_limit or saves)


def planned_steps(args: Any, rows: int) -> tuple[int, int]:
    """Optimizer steps of an epoch over `rows` rows, and of the run, as the loop of transformers counts them."""
    batches = rows / (args.per_device_train_batch_size * args.world_size)
    batches = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
    per_epoch = max(1, math.ceil(batches / args.gradient_accumulation_steps))
    return per_epoch, args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)


def _weight_bytes(model: Any) -> int:
    """What saved weights take: all of them, or those of the adapter."""
    adapter = hasattr(model, "peft_config")
    return sum(each.numel() * each.element_size() for each in model.parameters() if each.requires_grad or not adapter)


def optimizer_bytes(args: Any, parameters: Iterable[Any]) -> int:
    """What the optimizer keeps: two numbers for each trained parameter with Adam, none with plain SGD."""
    name = str(getattr(args.optim, "value", args.optim))
    trained = sum(each.numel() for each in parameters if each.requires_grad)
    if name.startswith(("sgd", "adafactor")):
        return 0
    if "8bit" in name:
        return 2 * trained
    return (4 if name.startswith(("lion", "rmsprop", "adagrad")) else 8) * trained


def _saves(trainer: Any) -> int:
    """How many checkpoints the run will write."""
    args = trainer.args
    if trainer.train_dataset is None:
        return 0
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    if strategy == "no":
        return 0
    per_epoch, steps = planned_steps(args, len(trainer.train_dataset))
    if strategy == "steps":
        return math.ceil(1 / args.save_steps if args.save_steps < 1 else steps / args.save_steps)
    return math.ceil(steps / per_epoch)
