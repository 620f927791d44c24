"""Relearning: a little training after unlearning, and what it brings back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from unlearn_hf.audit.base import AuditAttack, AuditPass, Findings
from unlearn_hf.data.collator import collate
from unlearn_hf.data.labels import IGNORE_INDEX
from unlearn_hf.evaluation.requests import SplitRequest
from unlearn_hf.evaluation.token_scores import ScoredText
from unlearn_hf.likelihood.answers import answer_likelihood
from unlearn_hf.models.loading import pad_token_id

LEARNING_RATE, WINDOW, MICRO_BATCH = 2e-5, 32, 8
LORA_LEARNING_RATE = 2e-4
PART = 0.1
# What is learnt, and what is trained.
_VARIANTS = {
    "forget_full": ("forget", False),
    "forget_lora": ("forget", True),
    "part_full": ("part", False),
    "part_lora": ("part", True),
    "benign_full": ("retain", False),
    "benign_lora": ("retain", True),
}


def relearn(
    model: nn.Module, texts: Sequence[ScoredText], learning_rate: float, seed: int, pad: int, device: torch.device
) -> None:
    """Train all trainable parameters for one epoch, in place: AdamW, no weight decay, a rate that falls to zero.

    Every process does the same, so that their models stay equal without a word between them.

    Args:
        model: left in evaluation mode; dropout is off throughout.
        texts: what to learn.
        learning_rate: of the first step.
        seed: of the order.
        pad: fills up batches.
        device: of the model.

    Source:
        one epoch, 2e-5, windows of 32 rows: the robustness protocol of open-unlearning, arXiv 2506.12618.
    """
    model.eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    windows = [order[start : start + WINDOW] for start in range(0, len(order), WINDOW)]
    for number, window in enumerate(windows):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - number / len(windows))
        total = sum(label != IGNORE_INDEX for index in window for label in texts[index].labels)
        for start in range(0, len(window), MICRO_BATCH):
            rows = [texts[index] for index in window[start : start + MICRO_BATCH]]
            batch = collate([{"input_ids": row.input_ids, "labels": row.labels} for row in rows], pad)
            with torch.enable_grad():
                found = answer_likelihood(model, {name: value.to(device) for name, value in batch.items()})
                (found.nll.sum() / total).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def learnt_and_judged(kind: str, forget: int, retain: int, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the rows that are learnt (of the retain set for `retain`) and of the forget rows that are judged."""
    if kind == "retain":
        drawn = torch.randperm(retain, generator=torch.Generator().manual_seed(seed)).tolist()
        return sorted(drawn[:forget]), list(range(forget))
    if kind == "forget":
        return list(range(forget)), list(range(forget))
    drawn = torch.randperm(forget, generator=torch.Generator().manual_seed(seed)).tolist()
    learnt = max(1, round(PART * forget))
    return sorted(drawn[:learnt]), sorted(drawn[learnt:])


class Relearning(AuditAttack):
    """The measures after an epoch on the forget rows, on a tenth of them (the rest judged), or on retain rows."""

    summary = "an epoch on all forget rows, on 10 % of them, or on as many retain rows; all weights or a LoRA adapter"
    paper = "Lynch et al. 2024, arXiv 2402.16835; Hu et al. 2025, arXiv 2406.13356"
    cost = "per variant, training on the rows once, a copy of the weights and Adam's state, and one evaluation"
    compared_by = "R"
    changes_model = True

    def variants(self, samples: int) -> tuple[str, ...]:
        """What is learnt, with what is trained."""
        return tuple(_VARIANTS)

    def findings(self, run: AuditPass, variant: str) -> Findings:
        """Train a copy, and measure it."""
        kind, lora = _VARIANTS[variant]
        learnt, judged = learnt_and_judged(kind, len(run.forget), len(run.retain), run.seed)
        if not judged or not learnt:
            raise ValueError(
                f"relearning: {len(run.forget)} forget rows are too few to learn a part and judge the rest; leave "
                "this attack out by --only."
            )
        rows: Sequence[Mapping[str, Any]] = run.retain if kind == "retain" else run.forget
        request = SplitRequest("relearning", [rows[index] for index in learnt], generated=False)
        texts = [text for text in request.texts(run.engine.encoder(run.tokenizer)) if text.scored]
        model: Any = run.copied_model().float()
        device = next(model.parameters()).device
        if lora:
            from peft import LoraConfig, get_peft_model

            torch.manual_seed(run.seed)  # of the adapter's first matrices
            model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
        else:
            model.requires_grad_(True)
        rate = LORA_LEARNING_RATE if lora else LEARNING_RATE
        relearn(model, texts, rate, run.seed, pad_token_id(run.tokenizer), device)
        return run.measured(model, run.forget, judged)


RELEARNING = Relearning()
