"""Audits of one run, and what they leave."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from unlearn_hf.cli.main import main

FEW = ["--samples", "3", "--max_new_tokens", "4", "--evaluation_batch_size", "4"]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def audit(*words: str) -> int:
    return main(["audit", "run", *FEW, *words])


def results(run: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    content = json.loads((run / "audit.json").read_text())
    return {(each["attack"], each["variant"], each["measure"]): each for each in content["results"]}
