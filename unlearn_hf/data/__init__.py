"""Data: benchmarks, own files, encoding and pairing."""

from __future__ import annotations

from unlearn_hf.data.collator import UnlearningCollator, collate
from unlearn_hf.data.encoding import encode_dataset, encode_pair, encode_prompt, encode_text
from unlearn_hf.data.forget_retain_pairs import PairedDataset
from unlearn_hf.data.own_files import load_pairs, load_rows
from unlearn_hf.data.templates import TEMPLATES, ChatTemplate, PromptTemplate, resolve_template
from unlearn_hf.data.text_windows import text_windows

__all__ = [
    "TEMPLATES",
    "ChatTemplate",
    "PairedDataset",
    "PromptTemplate",
    "UnlearningCollator",
    "collate",
    "encode_dataset",
    "encode_pair",
    "encode_prompt",
    "encode_text",
    "load_pairs",
    "load_rows",
    "resolve_template",
    "text_windows",
]
