"""Whether a run lays sequences end to end: where it pays, and changes nothing but the time."""

from __future__ import annotations

from typing import Any

import torch

from unlearn_hf.data.collator import join
from unlearn_hf.likelihood.answers import largest_packing_error
from unlearn_hf.likelihood.packed_rows import packing_pays, packing_tolerance
from unlearn_hf.training.followed_run import FollowedRun


def packs_rows(trainer: FollowedRun, batch: dict[str, Any], device: torch.device) -> bool:
    """Whether to pack, after a trial on the first batch.

    Args:
        trainer: the run, whose option `packing` says what is wanted.
        batch: rows, or rows of several sets.
        device: where the trial runs.

    Raises:
        ValueError: when packing is asked for, and the model gives packed rows other likelihoods.
    """
    args, model = trainer.args, trainer.model
    if args.packing == "false" or args.neftune_noise_alpha is not None:
        return False  # the noise on an embedding depends on the length of its row
    if args.packing == "auto" and (args.torch_compile or not packing_pays(model, device)):
        return False
    # Both sets, so that there are two rows at least.
    rows = join([batch[name] for name in ("forget", "retain") if name in batch]) if "forget" in batch else batch
    shortest = rows["attention_mask"].sum(-1).argsort()[:4]
    with trainer.compute_loss_context_manager():
        error = largest_packing_error(
            trainer.model_wrapped, {name: value[shortest].to(device) for name, value in rows.items()}
        )
    error = float(trainer.accelerator.reduce(torch.tensor(error, device=device), "max"))  # one verdict for all ranks
    half = args.bf16 or args.fp16 or next(model.parameters()).dtype != torch.float32
    agrees = error <= packing_tolerance(half)
    if args.packing == "true" and not agrees:
        raise ValueError(
            f"packing: 'true' is not possible, {type(model).__name__} gives packed rows other likelihoods than padded "
            f"ones (relative difference {error:.1g}); set it to 'false', or attn_implementation to 'sdpa'."
        )
    return agrees
