"""Data: benchmarks, own files, encoding and pairing."""

from __future__ import annotations

from unlearn_hf.data.benchmark import BenchmarkData, content_fingerprint
from unlearn_hf.data.collator import UnlearningCollator, collate
from unlearn_hf.data.encoding import encode_dataset, encode_pair, encode_prompt, encode_text
from unlearn_hf.data.muse import MuseData, load_muse
from unlearn_hf.data.pairing import PairedDataset
from unlearn_hf.data.pairs import load_pairs, load_rows
from unlearn_hf.data.templates import TEMPLATES, ChatTemplate, PromptTemplate, resolve_template
from unlearn_hf.data.tofu import TofuData, load_tofu
from unlearn_hf.data.windows import text_windows

__all__ = [
    "TEMPLATES",
    "BenchmarkData",
    "ChatTemplate",
    "MuseData",
    "PairedDataset",
    "PromptTemplate",
    "TofuData",
    "UnlearningCollator",
    "collate",
    "content_fingerprint",
    "encode_dataset",
    "encode_pair",
    "encode_prompt",
    "encode_text",
    "load_muse",
    "load_pairs",
    "load_rows",
    "load_tofu",
    "resolve_template",
    "text_windows",
]
