"""Relearning against the Trainer, and which rows are learnt and judged."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.audit.base import AuditSettings
from unlearn_hf.audit.relearning import learnt_and_judged, relearn, steps_of
from unlearn_hf.data.encoding import encode_pair
from unlearn_hf.data.templates import resolve_template
from unlearn_hf.evaluation.token_scores import ScoredText
from unlearn_hf.training.finetuning import FinetuningTrainer
from unlearn_hf.training.finetuning_config import FinetuningConfig

ROWS = [{"question": f"Who is author {i}?", "answer": f"It is Ada {i} of Oslo."} for i in range(11)]
CPU = torch.device("cpu")


def scored() -> list[ScoredText]:
    tokenizer = build_tokenizer()
    template = resolve_template(tokenizer, "auto")
    pairs = [encode_pair(tokenizer, template, row["question"], row["answer"], 64) for row in ROWS]
    return [ScoredText(str(i), each["input_ids"], each["labels"]) for i, each in enumerate(pairs)]


def test_a_window_is_a_step_of_the_trainer(tmp_path: Path) -> None:
    model = build_model(dropout=0.2)  # which is off in relearning, and has to be for the Trainer, too
    trained = copy.deepcopy(model)
    trained.config.attention_dropout = 0.0
    for module in trained.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    relearn(model, scored(), 1e-3, 1, 0, 1, CPU)
    args = FinetuningConfig(
        output_dir=str(tmp_path), max_steps=1, learning_rate=1e-3, per_device_train_batch_size=16, weight_decay=0.0,
        optim="adamw_torch", adam_epsilon=1e-8, max_grad_norm=1.0, warmup_steps=0, use_cpu=True, report_to="none",
        save_strategy="no", disable_tqdm=True, max_length=64,
    )  # fmt: skip
    FinetuningTrainer(trained, args, Dataset.from_list(ROWS), processing_class=build_tokenizer()).train()
    moved = 0.0
    for (name, mine), (_, theirs), (_, old) in zip(
        model.named_parameters(), trained.named_parameters(), build_model().named_parameters(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5, msg=name)
        moved = max(moved, (mine - old).detach().abs().max().item())
    assert moved == pytest.approx(1e-3, rel=0.01)


def test_steps_beyond_an_epoch_go_on_and_are_the_same_again() -> None:
    first, second, fewer = build_model(), build_model(), build_model()
    for model, steps in ((first, 4), (second, 4), (fewer, 2)):
        relearn(model, scored(), 1e-3, steps, 3, 1, CPU)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), fewer.parameters(), strict=True))
    assert steps_of(33, AuditSettings()) == 2
    assert steps_of(33, AuditSettings(relearning_steps=7)) == 7


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ValueError, match="relearning: no row that is to be learnt"):
        relearn(build_model(), [], 1e-3, 5, 0, 1, CPU)


def test_what_is_learnt_is_not_judged_in_part_alone() -> None:
    learnt, judged = learnt_and_judged("part", 40, 100, 0)
    assert len(learnt) == 4
    assert sorted(learnt + judged) == list(range(40))
    assert learnt_and_judged("part", 40, 100, 0) == (learnt, judged)
    assert learnt_and_judged("part", 40, 100, 1) != (learnt, judged)
    assert learnt_and_judged("forget", 5, 9, 0) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    benign, judged = learnt_and_judged("benign", 5, 9, 0)
    assert len(set(benign)) == 5
    assert max(benign) < 9
    assert judged == [0, 1, 2, 3, 4]
