"""Neighbours: retain rows that resemble forget rows, where unlearning does most collateral damage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unlearn_hf.audit.base import AuditAttack, AuditPass, Findings, Sizes, Work

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unlearn_hf.evaluation.requests import Encoder

MOST = 100
_BATCH = 16


def embeddings(model: nn.Module, encoder: Encoder, rows: Sequence[Mapping[str, Any]]) -> Tensor:
    """Embedding of each question: the mean of the model's own last hidden states over its tokens, of length 1.

    Args:
        model: a causal language model.
        encoder: turns questions into tokens.
        rows: rows with `question`.

    Returns:
        Shape `[n, H]`, float32, on the CPU.
    """
    import torch

    from unlearn_hf.data.collator import collate
    from unlearn_hf.data.encoding import encode_prompt
    from unlearn_hf.likelihood.one_pass import evaluating
    from unlearn_hf.models.loading import pad_token_id

    device, pad = next(model.parameters()).device, pad_token_id(encoder.tokenizer)
    ids = [encode_prompt(encoder.tokenizer, encoder.template, row["question"]) for row in rows]
    found = []
    with evaluating(model):
        for start in range(0, len(ids), _BATCH):
            batch = collate([{"input_ids": each} for each in ids[start : start + _BATCH]], pad)
            batch = {name: value.to(device) for name, value in batch.items()}
            hidden = model(**batch, output_hidden_states=True, use_cache=False).hidden_states[-1].float()
            mask = batch["attention_mask"][..., None]
            found.append(((hidden * mask).sum(1) / mask.sum(1)).cpu())
    return torch.nn.functional.normalize(torch.cat(found), dim=1)


def nearest_rows(forget: Tensor, retain: Tensor, most: int = MOST) -> tuple[list[int], list[int]]:
    """Retain rows with the highest cosine similarity to any forget row, and as many with the lowest.

    Args:
        forget: embeddings of length 1, `[n, H]`.
        retain: likewise, `[m, H]`.
        most: rows of each kind; at most half of all.
    """
    order = (retain @ forget.T).amax(1).argsort(descending=True, stable=True).tolist()
    count = min(most, len(order) // 2)
    return sorted(order[:count]), sorted(order[len(order) - count :])


class Neighbours(AuditAttack):
    """The measures of the retain rows nearest to forget rows, and of the farthest ones."""

    summary = "retain rows nearest to forget rows by the model's own embedding, and the farthest: collateral damage"
    paper = "this project"
    judges = "retain"
    shown = ("probability", "rouge_l_recall")

    def variants(self) -> tuple[str, ...]:
        """Both ends."""
        return ("nearest", "farthest")

    def work(self, sizes: Sizes) -> Work:
        """All questions, and the chosen rows."""
        chosen = 2 * min(MOST, sizes.retain // 2)
        return Work(2 * (sizes.forget + sizes.retain) + chosen, chosen)

    def findings(self, run: AuditPass, variant: str) -> Findings:
        """Choose the rows by the audited run, for all models alike, and measure them."""
        if run.earlier is not None:
            return run.measured(run.model, run.retain, run.earlier.rows)
        encoder = run.engine.encoder(run.tokenizer)
        forget, retain = (embeddings(run.model, encoder, rows) for rows in (run.forget, run.retain))
        nearest, farthest = nearest_rows(forget, retain)
        if not nearest:
            raise ValueError("neighbours: fewer than two retain rows; leave this attack out by --attacks.")
        return run.measured(run.model, run.retain, nearest if variant == "nearest" else farthest)


NEIGHBOURS = Neighbours()
