"""An adapter, put into its base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from unlearn_hf.models.loading import load_tokenizer


def merge_adapter(adapter: Path, base: str, dtype: str, folder: Path) -> None:
    """Save base plus adapter as a plain model, with the adapter's tokenizer.

    The base is loaded unquantised in float32, whatever it was held in while the adapter was trained; the sum is
    rounded once, to `dtype`.

    Args:
        adapter: folder of the adapter.
        base: hub id or folder of the base model.
        dtype: precision of the saved weights.
        folder: where the model goes.

    Raises:
        ValueError: when the base is stored quantised, or a merged weight is not finite in `dtype`.
    """
    from peft import PeftModel

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if getattr(model.config, "quantization_config", None) is not None:
        raise ValueError(
            f"base_model: {base!r} is stored quantised, and a sum with the adapter would be rounded to that; name the "
            "unquantised model."
        )
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    merged = merged.to(getattr(torch, dtype))
    if broken := [name for name, value in merged.named_parameters() if not torch.isfinite(value).all()]:
        raise ValueError(
            f"merged_dtype: {dtype} cannot hold {broken[0]} ({len(broken)} weights in all); use float32 or bfloat16."
        )
    merged.save_pretrained(folder)
    load_tokenizer(str(adapter)).save_pretrained(folder)
