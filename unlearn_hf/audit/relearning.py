"""Relearning: a little training after unlearning, and what it brings back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from unlearn_hf.audit.base import AuditAttack, AuditPass, AuditSettings, Findings, Sizes, Work

if TYPE_CHECKING:
    import torch
    from torch import nn

    from unlearn_hf.evaluation.token_scores import ScoredText

LEARNING_RATE, WINDOW, MICRO_BATCH = 2e-5, 32, 8
LORA_FACTOR = 10
"""By how much the learning rate of an adapter is higher."""
PART = 0.1


def steps_of(rows: int, settings: AuditSettings) -> int:
    """Optimizer steps: those that are asked for, or an epoch of windows of 32 rows."""
    return settings.relearning_steps or -(-rows // WINDOW)


def relearn(
    model: nn.Module,
    texts: Sequence[ScoredText],
    learning_rate: float,
    steps: int,
    seed: int,
    pad: int,
    device: torch.device,
) -> None:
    """Train all trainable parameters in place: AdamW, no weight decay, gradients up to norm 1, a rate that falls to 0.

    Every process does the same.

    Args:
        model: left in evaluation mode; dropout is off throughout.
        texts: what to learn, in windows of 32; the order is drawn anew for each epoch.
        learning_rate: of the first step.
        steps: how many.
        seed: of the order.
        pad: fills up batches.
        device: of the model.

    Raises:
        ValueError: where there is nothing to learn.

    Source:
        one epoch, 2e-5, windows of 32 rows: the robustness protocol of open-unlearning, arXiv 2506.12618.
    """
    import torch

    from unlearn_hf.data.collator import collate
    from unlearn_hf.data.labels import IGNORE_INDEX
    from unlearn_hf.likelihood.answers import answer_likelihood

    if not texts:
        raise ValueError(
            "relearning: no row that is to be learnt has an answer within max_length; leave this attack out."
        )
    model.eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)

    def windows() -> Any:
        while True:
            order = torch.randperm(len(texts), generator=generator).tolist()
            yield from (order[start : start + WINDOW] for start in range(0, len(order), WINDOW))

    for number, window in enumerate(islice(windows(), steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - number / steps)
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
    """Numbers of the rows that are learnt (of the retain set for `benign`) and of the forget rows that are judged."""
    import torch

    def drawn(count: int) -> list[int]:
        return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()

    if kind == "benign":
        return sorted(drawn(retain)[:forget]), list(range(forget))
    if kind == "forget":
        return list(range(forget)), list(range(forget))
    learnt = max(1, round(PART * forget))
    return sorted(drawn(forget)[:learnt]), sorted(drawn(forget)[learnt:])


class Relearning(AuditAttack):
    """The measures after training on all forget rows, on a tenth of them (the rest judged), or on retain rows.

    Args:
        lora: train an adapter of rank 16 on all linear layers instead of all weights.
    """

    paper = "Lynch et al. 2024, arXiv 2402.16835; Hu et al. 2025, arXiv 2406.13356"
    compared_by = "R"
    changes_model = True
    shown = ("extraction_strength", "rouge_l_recall")

    def __init__(self, lora: bool) -> None:
        self.lora, self.cheap = lora, not lora
        what = "a LoRA adapter" if lora else "all weights"
        self.summary = f"{what} trained on all forget rows, on 10 % of them (the rest judged), or on retain rows"

    def variants(self) -> tuple[str, ...]:
        """What is learnt."""
        return ("forget", "part", "benign")

    def work(self, sizes: Sizes) -> Work:
        """Training, and an evaluation of what is judged."""
        part = max(1, round(PART * sizes.forget))
        learnt = (sizes.forget, part, min(sizes.forget, sizes.retain))
        judged = 3 * sizes.forget - part
        return Work(judged, judged, sum(steps_of(rows, sizes.settings) for rows in learnt))

    def findings(self, run: AuditPass, variant: str) -> Findings:
        """Train a copy, and measure it."""
        import torch
        from accelerate.utils import broadcast

        from unlearn_hf.evaluation.requests import SplitRequest
        from unlearn_hf.models.loading import pad_token_id

        settings = run.settings
        learnt, judged = learnt_and_judged(variant, len(run.forget), len(run.retain), settings.seed)
        if not judged or not learnt:
            raise ValueError(
                f"relearning: {len(run.forget)} forget rows are too few to learn a part and judge the rest; leave "
                "this attack out by --attacks."
            )
        rows: Sequence[Mapping[str, Any]] = run.retain if variant == "benign" else run.forget
        request = SplitRequest("relearning", [rows[index] for index in learnt], generated=False)
        texts = [text for text in request.texts(run.engine.encoder(run.tokenizer)) if text.scored]
        parameter = next(run.model.parameters())
        model: Any = run.copied_model().float()
        rate = settings.relearning_rate or LEARNING_RATE
        if self.lora:
            from peft import LoraConfig, get_peft_model

            rate *= LORA_FACTOR
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(settings.seed)  # of the adapter's first matrices
                model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
        else:
            model.requires_grad_(True)
        steps = steps_of(len(texts), settings)
        relearn(model, texts, rate, steps, settings.seed, pad_token_id(run.tokenizer), parameter.device)
        for each in model.parameters():  # GPUs may round otherwise, one from the other
            each.data = broadcast(each.data)
        return run.measured(model.to(parameter.dtype), run.forget, judged)


RELEARNING, RELEARNING_LORA = Relearning(lora=False), Relearning(lora=True)
