"""The engine: gathers what metrics need of a model, runs each pass once, and fills one per-sample table."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial as partial_function
from typing import Any

import pandas as pd
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from transformers import PreTrainedTokenizerBase

from unlearn_hf.common.checks import GENERATION_BACKENDS, check_choice, check_count
from unlearn_hf.common.versions import versions
from unlearn_hf.data.templates import resolve_template
from unlearn_hf.evaluation.generation import (
    GenerationSettings,
    choose_backend,
    end_tokens,
    generate,
)
from unlearn_hf.evaluation.metrics.catalog import metrics
from unlearn_hf.evaluation.packed_scoring import can_pack, group_texts, score_groups
from unlearn_hf.evaluation.requests import Encoder, Request
from unlearn_hf.evaluation.sample_table import row_fingerprint
from unlearn_hf.likelihood.one_pass import PartialResults, evaluating, results_of_all_ranks, run_pass
from unlearn_hf.models.fingerprint import model_fingerprint
from unlearn_hf.models.loading import pad_token_id
from unlearn_hf.models.sharding import shards
from unlearn_hf.models.wrappers import causal_model

_TOKENS, _CPU_TOKENS = 8192, 512


@dataclass
class Engine:
    """Runs a model over split requests.

    Attributes:
        template: prompt template, by name.
        batch_size: most sequences per forward pass.
        token_budget: most padded tokens per forward pass of scoring; by default 8192, and 512 on a CPU, where more
            at once takes longer and more memory.
        max_length: tokens per scored sequence.
        generation: how to generate.
        packed: whether the answers to one question are scored in one row that computes the question once, where the
            model can do that.
        generation_backend: one of `checks.GENERATION_BACKENDS`; the texts are the same.
        seconds: of each pass of the last run.
    """

    template: str = "auto"
    batch_size: int = 32
    token_budget: int | None = None
    max_length: int = 512
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    packed: bool = True
    generation_backend: str = "auto"
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse sizes that are no numbers above zero."""
        for name in ("batch_size", "token_budget", "max_length"):
            check_count(name, getattr(self, name))
        check_choice("generation_backend", self.generation_backend, GENERATION_BACKENDS)

    def settings(self) -> dict[str, Any]:
        """What results depend on, JSON-ready; batches do not change them, but under TOFU's official rule."""
        found = {"template": self.template, "max_length": self.max_length, "generation": asdict(self.generation)}
        if self.generation.max_length is not None:
            found |= {"batch_size": self.batch_size, "token_budget": self.token_budget}
        return found

    def fingerprint(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, accelerator: Accelerator | None = None
    ) -> str:
        """Hash what results depend on beside encoded texts and prompts.

        That is the model with its precision, attention and adapters, what ends a continuation and decodes it, and the
        versions of libraries and of our definitions.
        """
        vocabulary = hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()
        spaces = getattr(tokenizer, "clean_up_tokenization_spaces", None)
        return settings_fingerprint(
            model_fingerprint(model),
            next(model.parameters()).device.type if accelerator is None else accelerator.device.type,
            None if accelerator is None else accelerator.mixed_precision,
            [end_tokens(tokenizer, model), pad_token_id(tokenizer), sorted(tokenizer.all_special_ids)],
            [vocabulary, spaces],
            versions(),
            {name: description.version for name, description in metrics().items()},
            self.settings(),
        )

    def run(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[Request],
        *,
        accelerator: Accelerator | None = None,
        partial: PartialResults | None = None,
    ) -> pd.DataFrame:
        """Fill the per-sample table.

        Args:
            model: a causal language model; its mode, gradients and settings stay as they are.
            tokenizer: its tokenizer, not altered.
            requests: what is needed.
            accelerator: shares the work out over ranks; every rank gets the whole table.
            partial: results of an interrupted run to continue.

        Returns:
            One row per (split, index).

        Raises:
            ValueError: when a likelihood is not finite, naming split, row and field.
        """
        encoder = self.encoder(tokenizer)
        partial = partial or PartialResults(None, "")
        device = accelerator.device if accelerator is not None else next(model.parameters()).device
        texts = [text for request in requests for text in request.texts(encoder)]
        prompts = [prompt for request in requests for prompt in request.prompts(encoder, self.generation)]
        pad = pad_token_id(tokenizer)
        ranks = accelerator.num_processes if accelerator is not None else 1
        sharded = shards(accelerator)
        precision = accelerator.autocast if accelerator is not None and not sharded else nullcontext
        with evaluating(model):
            start = time.perf_counter()
            groups = group_texts(texts, self.packed)
            pending = len(results_of_all_ranks(groups, partial, accelerator)) < len(groups)
            if self.packed and pending:
                with precision():
                    half = accelerator is not None and accelerator.mixed_precision != "no"
                    packs = can_pack(model, groups, pad, device, half)
                groups = groups if all(_of_all_ranks(packs, accelerator)) else group_texts(texts, packed=False)
            found = run_pass(
                "likelihood",
                groups,
                lambda batch: score_groups(model, batch, pad, device),
                token_budget=self.token_budget or (_CPU_TOKENS if device.type == "cpu" else _gpu_tokens(model)),
                description="Likelihoods",
                batch_size=self.batch_size,
                accelerator=accelerator,
                partial=partial,
            )
            scores = {key: score for group in found.values() for key, score in group.items()}
            middle = time.perf_counter()
            generations: dict[str, str] = {}
            for settings in dict.fromkeys(prompt.settings for prompt in prompts):  # they can share a batch
                chosen = [prompt for prompt in prompts if prompt.settings == settings]
                done = results_of_all_ranks(chosen, partial, accelerator)
                missing = [prompt for prompt in chosen if prompt.key not in done]
                with precision():
                    backend = choose_backend(self.generation_backend, model, tokenizer, missing, device, sharded)
                if len(set(_of_all_ranks(backend, accelerator))) > 1:
                    backend = "transformers"
                # Slots take all that there is; a padded batch is one of `batch_size`.
                whole = backend != "transformers"
                compute = partial_function(
                    generate,
                    backend,
                    model,
                    tokenizer,
                    device=device,
                    batch_size=self.batch_size,
                    sharded=sharded,
                )
                generations |= run_pass(
                    "generation",
                    chosen,
                    compute,
                    token_budget=sys.maxsize if whole else self.token_budget or _TOKENS,
                    description="Generations",
                    batch_size=math.ceil(len(missing) / ranks) or 1 if whole else self.batch_size,
                    accelerator=accelerator,
                    partial=partial,
                )
            self.seconds = {"likelihood": middle - start, "generation": time.perf_counter() - middle}
        _check_finite(scores)
        table = [
            {
                "split": request.split,
                "index": index,
                "row": row_fingerprint(row),
                **request.table_row(index, scores, generations, encoder),
            }
            for request in requests
            for index, row in enumerate(request.rows)
        ]
        return pd.DataFrame(table)

    def encoder(self, tokenizer: PreTrainedTokenizerBase) -> Encoder:
        """How rows become tokens."""
        return Encoder(tokenizer, resolve_template(tokenizer, self.template), self.max_length)


def _of_all_ranks(value: Any, accelerator: Accelerator | None) -> list[Any]:
    """What each rank has found, so that all of them go the same way."""
    found: list[Any] = [value] if accelerator is None else gather_object([value])
    return found


def _gpu_tokens(model: nn.Module) -> int:
    """Padded tokens of a batch whose logits, all of which packed scoring keeps, take 1 GiB in float32 at most."""
    inner = causal_model(model)
    vocabulary = getattr(getattr(inner, "config", None), "vocab_size", None) or 1
    return min(_TOKENS, max(512, 2**28 // vocabulary))


def settings_fingerprint(*parts: Any) -> str:
    """Hash JSON-ready values: of a model, of data, of settings."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _check_finite(scores: Mapping[str, Any]) -> None:
    broken = [key for key, value in scores.items() if not math.isfinite(value["nll"])]
    if broken:
        raise ValueError(
            f"the model gives no finite likelihood for {len(broken)} of {len(scores)} texts, first {broken[0]!r} "
            "(split/row/field): its weights have probably diverged; evaluate an earlier checkpoint."
        )
