"""Small data in the form of the official files, which `scripts/generate_mini_data.py` writes."""

from __future__ import annotations

from pathlib import Path

MINI_TOFU = Path(__file__).parent / "tofu"
MINI_NEWS = Path(__file__).parent / "news"
MINI_LUME = Path(__file__).parent / "lume"
