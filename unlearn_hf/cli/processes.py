"""Several processes without an accelerator."""

from __future__ import annotations

import os

import torch


def join_processes() -> None:
    """Let processes that were launched together on CPUs find each other.

    Without a GPU, transformers looks for them only when told to use the CPU; otherwise each would silently do the
    whole work alone and overwrite the others' files. Call it before training arguments or an `Accelerator` are made.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.accelerator.is_available():
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
