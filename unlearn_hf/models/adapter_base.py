"""Whether an adapter belongs to a base model, as far as records and files tell, without torch."""

from __future__ import annotations

import warnings
from pathlib import Path

from unlearn_hf.common.run_record import read_record
from unlearn_hf.models.paths import check_model_path, is_adapter
from unlearn_hf.models.weights import BaseModel, base_under, tensor_shapes


def check_base(adapter: Path, base: str) -> None:
    """Refuse a base model that an adapter was not trained on; warns where nothing tells.

    Args:
        adapter: its folder.
        base: hub id or folder of the base model.

    Raises:
        ValueError: naming `base_model`.
    """
    check_model_path(base, "base_model")
    if is_adapter(base):
        raise ValueError(f"base_model: {base!r} is an adapter itself; merge it first, and name the result.")
    recorded = read_record(adapter).get("base_model") or {}
    found = BaseModel.named(base)
    if recorded.get("fingerprint") and found.fingerprint:
        if recorded["fingerprint"] != found.fingerprint:
            raise ValueError(
                f"base_model: {base!r} is not the model that the adapter in {str(adapter)!r} was trained on "
                f"({recorded['name']!r} as it was then); name that one with --base_model."
            )
        return
    own = base_under(str(adapter)).name
    if found.fingerprint is None:
        if base != own:
            raise ValueError(f"base_model: the adapter was trained on {own!r}, not on {base!r}; name that one.")
        return
    _check_shapes(adapter, Path(base), own)
    warnings.warn(
        f"base_model: nothing records which weights the adapter in {str(adapter)!r} was trained on; the shapes of "
        f"{base!r} fit, and that is all that is known",
        stacklevel=2,
    )


def _check_shapes(adapter: Path, base: Path, own: str) -> None:
    """Refuse a base model whose weights an adapter for `own` does not fit."""
    shapes = tensor_shapes(base)
    for name, shape in tensor_shapes(adapter).items() if shapes else ():
        weight, low_rank, side = name.removeprefix("base_model.model.").partition(".lora_")
        weight += ".weight"
        dimension = 0 if side.startswith("B") else 1  # A takes what the layer takes, B gives what it gives
        there = shapes.get(weight, ())
        if low_rank and len(shape) == 2 and there[dimension : dimension + 1] != shape[dimension : dimension + 1]:
            raise ValueError(
                f"base_model: {str(base)!r} has {weight} of shape {list(there)}, which the adapter's {list(shape)} "
                f"does not fit; name the model that it was trained on ({own!r})."
            )
