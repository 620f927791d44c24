"""What can be seen of a model or tokenizer by its name, without torch: whether it is there, and whole."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

_ENCODERS = ("ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*", "adapter_model.bin")
_OWN_TYPES = ("whp",)  # models of this package, which `loading` registers with transformers
_HEADER_BYTES = 8  # a safetensors file begins with the length of its header


def check_model_path(name: str, field: str = "model_name_or_path", trust_remote_code: bool = False) -> None:
    """Raise a `ValueError` unless a causal language model, whole, is in the folder `name` or could be on the hub.

    Args:
        name: a folder or a hub id.
        field: the option that named it, for errors.
        trust_remote_code: whether code in the folder may be run.

    Raises:
        ValueError: naming `field`, when `name` looks like a path and is not there, when the folder holds no model,
            not all of one, or another kind of model, or when the hub is off and the model is not in its cache.
    """
    path = Path(name)
    if not path.is_dir():
        _check_hub_id(name, field, ("config.json",))
        return
    if (path / "adapter_config.json").exists():
        adapter = _read_config(path / "adapter_config.json", field)
        _check_weights(path, field)
        base = adapter.get("base_model_name_or_path")
        if not isinstance(base, str) or not base:
            raise ValueError(f"{field}: {name!r} is an adapter that names no base_model_name_or_path; add it.")
        check_model_path(base, f"{field}: {name!r} is an adapter; base_model_name_or_path", trust_remote_code)
        return
    if not (path / "config.json").exists():
        raise ValueError(
            f"{field}: the folder {name!r} holds neither config.json nor adapter_config.json; name the folder that a "
            "model was saved to."
        )
    _check_config(_read_config(path / "config.json", field), path, field, trust_remote_code)
    _check_weights(path, field)


def is_adapter(model: Any) -> bool:
    """Whether a model, or the folder that it is named by, has an adapter."""
    if isinstance(model, (str, os.PathLike)):
        return (Path(model) / "adapter_config.json").is_file()
    return hasattr(model, "peft_config")


def base_name(name: str) -> str:
    """The model itself, or the base of the adapter in the folder `name`."""
    config = Path(name) / "adapter_config.json"
    return str(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]) if is_adapter(name) else name


def check_tokenizer_path(name: str, field: str = "tokenizer_name_or_path") -> None:
    """Raise a `ValueError` unless a tokenizer is in the folder `name`, or could be on the hub.

    Raises:
        ValueError: naming `field`.
    """
    path = Path(name)
    if not path.is_dir():
        _check_hub_id(name, field, _TOKENIZER_FILES)
    elif not any((path / file).exists() for file in _TOKENIZER_FILES):
        adapter = path / "adapter_config.json"
        base = _read_config(adapter, field).get("base_model_name_or_path") if adapter.exists() else None
        raise ValueError(
            f"{field}: the folder {name!r} holds no tokenizer (tokenizer.json and tokenizer_config.json); save it "
            f"there, or name {f'that of the base model, {base!r}' if base else 'another one'} with "
            "--tokenizer_name_or_path."
        )


def check_classifier_path(name: str, field: str) -> None:
    """Raise a `ValueError` unless a sequence classifier with its tokenizer is in the folder `name`, or on the hub.

    Raises:
        ValueError: naming `field`.
    """
    path = Path(name)
    if not path.is_dir():
        _check_hub_id(name, field, ("config.json",))
        return
    if not (path / "config.json").exists():
        raise ValueError(f"{field}: the folder {name!r} holds no config.json; name the folder of a classifier.")
    architectures = [str(each) for each in _read_config(path / "config.json", field).get("architectures") or ()]
    if not any(each.endswith("ForSequenceClassification") for each in architectures):
        raise ValueError(
            f"{field}: {name!r} is {', '.join(architectures) or 'of no known kind'}; name a sequence classifier "
            "(...ForSequenceClassification)."
        )
    _check_weights(path, field)
    check_tokenizer_path(name, field)


def _read_config(file: Path, field: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ValueError(f"{field}: {str(file)!r} is no JSON ({problem}); save the model again.") from problem
    if not isinstance(content, dict):
        raise ValueError(
            f"{field}: {str(file)!r} holds {type(content).__name__}, not an object; save the model again."
        )
    return content


def _check_config(config: dict[str, Any], path: Path, field: str, trust_remote_code: bool) -> None:
    """Refuse what is no causal language model, and code that nobody allowed to run."""
    remote = config.get("auto_map")
    kind = config.get("model_type")
    if remote and not trust_remote_code and not _is_native(kind):
        raise ValueError(
            f"{field}: the folder {str(path)!r} brings code of its own to run, for model_type {kind!r}; read it, and "
            "add --trust_remote_code if you trust it."
        )
    if not isinstance(kind, str):
        raise ValueError(
            f"{field}: {str(path / 'config.json')!r} names no model_type; name the folder that a model was saved to."
        )
    if not remote and not _is_native(kind):
        raise ValueError(
            f"{field}: {str(path / 'config.json')!r} has model_type {kind!r}, which this version of transformers does "
            "not know; a newer version may."
        )
    architectures = [str(each) for each in config.get("architectures") or ()]
    encoder = [each for each in architectures if each.endswith(_ENCODERS)]
    if config.get("is_encoder_decoder") is True or encoder:
        what = f"an encoder ({encoder[0]})" if encoder else f"an encoder and a decoder ({kind})"
        raise ValueError(
            f"{field}: {str(path)!r} is {what}; only causal language models, which write from left to right, can be "
            "trained and judged here."
        )


def _is_native(kind: Any) -> bool:
    """Whether transformers has code for this model type, this package has, or a process has registered some."""
    if kind in _OWN_TYPES:
        return True
    loaded = sys.modules.get("transformers.models.auto.configuration_auto")
    if loaded is not None:
        return kind in loaded.CONFIG_MAPPING
    found = importlib.util.find_spec("transformers")  # finds the package, and does not import it
    assert found is not None
    assert found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "models" / "auto"
    listed = (folder / name for name in ("auto_mappings.py", "configuration_auto.py"))
    return any(f'("{kind}", ' in file.read_text(encoding="utf-8") for file in listed if file.exists())


def _check_weights(path: Path, field: str) -> None:
    """Refuse a folder whose weights are missing, or were not written or copied to their end."""
    if not any(True for pattern in WEIGHTS for _ in path.glob(pattern)):
        raise ValueError(
            f"{field}: the folder {str(path)!r} holds no weights (model.safetensors); name the folder that a model "
            "was saved to."
        )
    for index in path.glob("*.safetensors.index.json"):
        files = set(_read_config(index, field).get("weight_map", {}).values())
        missing = sorted(file for file in files if not (path / file).exists())
        if missing:
            raise ValueError(
                f"{field}: {missing[0]} is missing in {str(path)!r}, which {index.name} names ({len(missing)} of "
                f"{len(files)} files are missing); copy the model again."
            )
    for file in sorted(path.glob("*.safetensors")):
        _, expected = safetensors_header(file) or ({}, None)
        found = file.stat().st_size
        if expected is None or found < expected:
            told = f"{expected} bytes by its header" if expected else "no header that can be read"
            raise ValueError(f"{field}: {str(file)!r} is cut short: {found} bytes, {told}; copy the model again.")


def safetensors_header(file: Path) -> tuple[dict[str, Any], int] | None:
    """What a safetensors file says of its tensors by name, and how long it has to be; `None` without a header."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_HEADER_BYTES), "little")
        if not 0 < length <= file.stat().st_size:
            return None
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            return None
    header.pop("__metadata__", None)
    return header, _HEADER_BYTES + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)


def _check_hub_id(name: str, field: str, files: tuple[str, ...]) -> None:
    """Refuse what looks like a path and is not there, and hub ids that cannot be had offline."""
    path = Path(name)
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") != 1 or path.parent.is_dir()
    if looks_like_path and not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{field}: {name!r} is not there; check the path.")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}:
        from huggingface_hub import try_to_load_from_cache

        if not any(isinstance(try_to_load_from_cache(name, file), str) for file in files):
            raise ValueError(
                f"{field}: {name!r} is neither a folder nor in the local cache, and the hub is off "
                "(HF_HUB_OFFLINE); give a folder, or unset HF_HUB_OFFLINE once to download it."
            )
