"""What the machine and its packages cannot do, checked before anything is loaded."""

from __future__ import annotations

import importlib.util

import torch
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.utils import is_torch_bf16_gpu_available


def check_precision(bf16: bool, fp16: bool, use_cpu: bool) -> None:
    """Refuse a half precision that the device does not compute in.

    Raises:
        ValueError: for `fp16` without an accelerator, and `bf16` on one that has none.
    """
    on_cpu = use_cpu or not torch.accelerator.is_available()
    if fp16 and on_cpu:
        raise ValueError("fp16: True needs a GPU, and none is there or wanted; use bf16, or leave it out.")
    if bf16 and not on_cpu and not is_torch_bf16_gpu_available():
        raise ValueError("bf16: True is not possible on this GPU, which does not compute in it; use fp16.")


def check_reporting(report_to: str | list[str] | None) -> None:
    """Refuse a logger that transformers does not know, or whose package is not installed.

    Raises:
        ValueError: naming the loggers there are.
    """
    available = get_available_reporting_integrations()
    for name in [report_to] if isinstance(report_to, str) else report_to or []:
        if name in ("all", "none", *available):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            names = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ValueError(f"report_to: {name!r} is not known; choose none, or one of {names}.")
        there = ", ".join(available) or "none"
        raise ValueError(
            f"report_to: {name!r} needs its package, which is not installed; install it, or choose one of those that "
            f"are there ({there}), or none."
        )


def check_four_bit() -> None:
    """Raise a `ValueError` unless bitsandbytes, which holds weights in 4 bit, is installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            "load_in_4bit: True needs bitsandbytes, which is not installed; install it with `pip install "
            "'unlearn-hf[qlora]'`, or leave it out."
        )
