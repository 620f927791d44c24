"""A hash of the files of a model, which tells two models apart without loading them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from unlearn_hf.models.paths import WEIGHTS, base_name, safetensors_header

_SAMPLES = 256
_SAMPLE_BYTES = 4096


def folder_fingerprint(folder: Path) -> str:
    """Hash `config.json`, `adapter_config.json`, and of each file of weights its size and up to 256 samples of 4 KiB.

    A training step changes nearly every weight, so a model that was trained further is told apart. Two folders with
    the same files have the same hash, wherever they are.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "adapter_config.json"):
        if (folder / name).is_file():
            digest.update(name.encode() + (folder / name).read_bytes())
    files = sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)})
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}{size}".encode())
        with file.open("rb") as stream:
            for start in range(0, size, max(_SAMPLE_BYTES, size // _SAMPLES)):
                stream.seek(start)
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def content_digest(folder: Path) -> str:
    """SHA-256 over every byte of the weights and configurations in `folder`, and of the base model of an adapter.

    Two folders with the same files have the same digest, wherever they are; of a base on the hub only the name counts.
    """
    digest = hashlib.sha256()
    files = {folder / name for name in ("config.json", "adapter_config.json")}
    for file in sorted({*files, *(file for pattern in WEIGHTS for file in folder.glob(pattern))}):
        if file.is_file():
            with file.open("rb") as stream:
                digest.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    if (base := base_name(str(folder))) != str(folder):
        digest.update((content_digest(Path(base)) if Path(base).is_dir() else base).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class BaseModel:
    """A model that another was made from.

    Attributes:
        name: hub id or folder.
        fingerprint: of its files, `None` for a hub id.
    """

    name: str
    fingerprint: str | None

    @classmethod
    def named(cls, name: str) -> BaseModel:
        """The model of this name, as it is now."""
        return cls(name, folder_fingerprint(Path(name)) if Path(name).is_dir() else None)


def base_under(name: str) -> BaseModel:
    """The model itself, or that under the adapter in the folder `name`."""
    return BaseModel.named(base_name(name))


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in the safetensors files of a folder, read from their headers."""
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        header, _ = safetensors_header(file) or ({}, 0)
        found |= {name: tuple(entry["shape"]) for name, entry in header.items()}
    return found
