"""A hash of the files of a model, which tells two models apart without loading them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from unlearn_hf.models.paths import WEIGHTS

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
