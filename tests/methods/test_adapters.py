"""A trained adapter says the same beside the model and merged into it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from tests.small_runs import WITH_ADAPTERS, build_trainer, rows
from tests.tiny_models import build_model
from unlearn_hf.data.collator import collate
from unlearn_hf.likelihood.answers import answer_likelihood


@pytest.mark.parametrize("case", WITH_ADAPTERS)
def test_adapter_merged_or_not(case: str, tmp_path: Path) -> None:
    trainer = build_trainer(case, tmp_path, peft_config=LoraConfig(r=4, target_modules="all-linear"))
    trainer.eval_dataset = {"forget": rows(8, 7), "retain": rows(8, 8)}
    trainer.train()
    losses = trainer.evaluate()
    merged = trainer.model.merge_and_unload().eval()
    start = build_model().eval()
    for name, dataset in (("forget", rows(8, 7)), ("retain", rows(8, 8))):
        batch = collate(list(dataset), pad_token_id=1)
        with torch.no_grad():
            likelihood, before = answer_likelihood(merged, batch), answer_likelihood(start, batch)
        # evaluation averages over batches of four rows
        by_batch = (likelihood.nll.view(2, 4).sum(1) / likelihood.tokens.view(2, 4).sum(1)).mean()
        assert losses[f"eval_{name}_loss"] == pytest.approx(by_batch.item(), abs=1e-5)
        assert (likelihood.nll - before.nll).abs().max() > 1e-4
