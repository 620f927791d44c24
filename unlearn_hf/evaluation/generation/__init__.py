"""Continuations of prompts that leave model and tokenizer as they were, by one of several backends.

`backends` chooses among them; the others are a backend each, and `decoding` the loop behind `slots`.
"""

from unlearn_hf.evaluation.generation.backends import choose_backend, generate
from unlearn_hf.evaluation.generation.prompts import GeneratedText, GenerationSettings, end_tokens

__all__ = ["GeneratedText", "GenerationSettings", "choose_backend", "end_tokens", "generate"]
