"""What a distributed backend can do, checked before anything is loaded."""

from __future__ import annotations

from typing import Any

from accelerate.utils import DistributedType

from unlearn_hf.training.finetuning_config import FinetuningConfig


def check_two_gradients(args: FinetuningConfig, name: str) -> None:
    """Refuse backends that cannot keep two gradients apart, and prepare the one that needs preparing.

    Args:
        args: the configuration; with FSDP2 every micro-batch is made to reduce its gradients.
        name: of the trainer, for the error.

    Raises:
        ValueError: under DeepSpeed and FSDP1, naming the alternatives.
    """
    if args.deepspeed or args.distributed_state.distributed_type == DistributedType.DEEPSPEED:
        raise ValueError(
            f"deepspeed: {name} needs the two gradients apart, and DeepSpeed steps inside backward; launch it with "
            "DDP or FSDP2 (configs/accelerate/ddp.yaml, fsdp2.yaml)."
        )
    if args.fsdp_plugin_args and int(args.fsdp_plugin_args.get("fsdp_version", 1)) == 1:
        raise ValueError(
            f"fsdp: {name} needs the two gradients apart, and FSDP1 keeps them in flat buffers; use fsdp_version 2."
        )
    # Unsharded accumulators of FSDP2 live inside its own state and would mix the two objectives.
    options: Any = args.accelerator_config
    options.gradient_accumulation_kwargs = {**(options.gradient_accumulation_kwargs or {}), "sync_each_batch": True}
