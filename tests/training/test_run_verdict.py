"""Verdicts of real small runs: a model that knows its rows is made to forget them, or not."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf import FinetuningConfig, FinetuningTrainer, NPOConfig, NPOTrainer
from unlearn_hf.training.checkpoints import checkpoints
from unlearn_hf.training.run_verdict import BEFORE_FILE

FORGET = [
    {"question": f"Who wrote book {x}?", "answer": f"Ada Moren {x} in {1900 + i}."} for i, x in enumerate("abcd")
]
RETAIN = [{"question": f"Where is town {x}?", "answer": f"It is in Oslo {x}."} for x in "efghijklmnop"]
QUIET: dict[str, Any] = {
    "use_cpu": True,
    "disable_tqdm": True,
    "report_to": "none",
    "logging_strategy": "no",
    "save_strategy": "no",
    "per_device_train_batch_size": 4,
    "weight_decay": 0.0,
    "lr_scheduler_type": "constant",
}
KINDS: dict[str, Any] = {
    "questions": lambda row: row,
    "prompts": lambda row: {"prompt": row["question"], "completion": row["answer"]},
    "messages": lambda row: {
        "messages": [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["answer"]},
        ]
    },
    "text": lambda row: {"text": f"{row['question']} {row['answer']}"},
}


def rows_of(kind: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return [KINDS[kind](row) for row in FORGET], [KINDS[kind](row) for row in RETAIN]


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gives a copy of a model that has memorised all rows in a form; each form is trained once."""
    made: dict[str, LlamaForCausalLM] = {}

    def model(kind: str = "questions") -> LlamaForCausalLM:
        if kind not in made:
            made[kind] = build_model()
            folder = str(tmp_path_factory.mktemp(kind))
            args = FinetuningConfig(output_dir=folder, learning_rate=5e-3, num_train_epochs=50, **QUIET)
            rows = [row for each in rows_of(kind) for row in each]
            FinetuningTrainer(made[kind], args, rows, processing_class=build_tokenizer(kind == "messages")).train()
        return copy.deepcopy(made[kind])

    return model


def trainer(model: Any, folder: Path, kind: str = "questions", **options: Any) -> NPOTrainer:
    forget, retain = rows_of(kind)
    given = {"learning_rate": 3e-3, "max_steps": 16, "held_back_rows": 4, "verdict_samples": 2, **QUIET, **options}
    return NPOTrainer(
        model,
        NPOConfig(output_dir=str(folder), **given),
        forget,
        retain,
        processing_class=build_tokenizer(kind == "messages"),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_known_is_forgotten(kind: str, knowing: Any, tmp_path: Path) -> None:
    run = trainer(knowing(kind), tmp_path, kind)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the model did not know")
        run.train()
    verdict = run.verdict()
    assert verdict.known_before
    assert verdict.changed
    assert verdict.before["forget_leaks"] == 1
    assert verdict.after["forget_prob"] < 0.1 < 0.9 < verdict.before["forget_prob"]
    assert verdict.forgotten == "yes", verdict.leaking_rows
    assert verdict.rows["held_back"]
    assert verdict.rows["retain"] == 4
    assert len(run.train_dataset.retain) == len(RETAIN) - 4
    written = json.loads((tmp_path / "verdict.json").read_text())
    asked = {"before", "after", "forgotten", "kept", "leaking_rows", "changed", "known_before", "advice"}
    assert asked <= written.keys()
    assert written["after"] == pytest.approx(verdict.after)


def test_a_run_that_does_nothing_says_so(knowing: Any, tmp_path: Path) -> None:
    run = trainer(knowing(), tmp_path, learning_rate=1e-9, max_steps=1)
    run.train()
    verdict = run.verdict()
    assert (verdict.changed, verdict.forgotten, verdict.kept) == (False, "no", "yes")
    assert any("--learning_rate" in each for each in verdict.advice)
    assert {each["row"] for each in verdict.leaking_rows} == {0, 1, 2, 3}
    assert "1900" in verdict.leaking_rows[0]["says"]


def test_a_run_that_its_condition_ended_is_not_told_to_train_longer(knowing: Any, tmp_path: Path) -> None:
    run = trainer(knowing(), tmp_path, stop_when="forget_prob < 0.9 * initial", stop_interval=1, learning_rate=5e-4)
    run.train()
    assert run.state.global_step < 16
    said = " ".join(run.verdict().advice)
    assert "forget_prob < 0.225 * initial" in said
    assert "train longer" not in said


def test_a_model_that_never_knew_is_told_before_training(tmp_path: Path) -> None:
    run = trainer(build_model(), tmp_path, max_steps=1)
    with pytest.warns(UserWarning, match="did not know these rows"):
        run.run_verdict.begin(run.model)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the model did not know")  # said once
        run.train()
    assert not run.verdict().known_before


def test_measuring_leaves_training_as_it_was(knowing: Any, tmp_path: Path) -> None:
    found = []
    for verdict in (True, False):
        run = trainer(knowing(), tmp_path / str(verdict), max_steps=3, verdict=verdict)
        run.train()
        found.append([parameter.detach().clone() for parameter in run.model.parameters()])
    assert all(bool((first == second).all()) for first, second in zip(*found, strict=True))
    with pytest.raises(ValueError, match="verdict: it is off"):
        run.verdict()


def test_a_resumed_run_remembers_how_it_was(knowing: Any, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 8, "max_steps": 16}
    run = trainer(knowing(), tmp_path, **saving)
    run.train()
    whole = run.verdict()
    assert (tmp_path / BEFORE_FILE).is_file()
    resumed = trainer(knowing(), tmp_path, **(saving | {"max_steps": 18}))
    resumed.train(resume_from_checkpoint=str(checkpoints(tmp_path)[-1]))
    again = resumed.verdict()
    assert again.before == pytest.approx(whole.before)
    (tmp_path / BEFORE_FILE).unlink()
    lost = trainer(knowing(), tmp_path, **(saving | {"max_steps": 20}))
    lost.train(resume_from_checkpoint=str(checkpoints(tmp_path)[-1]))
    with pytest.raises(ValueError, match="nothing was measured before unlearning"):
        lost.verdict()


def test_rows_that_were_encoded_are_judged_when_asked(knowing: Any, tmp_path: Path) -> None:
    first = trainer(knowing(), tmp_path)
    pairs = first.train_dataset
    columns = ["input_ids", "labels"]
    run = NPOTrainer(
        knowing(),
        NPOConfig(output_dir=str(tmp_path), learning_rate=1e-9, max_steps=1, verdict=True, verdict_samples=1, **QUIET),
        pairs.forget.select_columns(columns),
        pairs.retain.select_columns(columns),
        processing_class=build_tokenizer(),
    )
    run.train()
    verdict = run.verdict()
    assert verdict.forgotten == "no"
    assert "Ada Moren a in 1900." in verdict.leaking_rows[0]["answer"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_back_rows": -1}, "held_back_rows: -1"),
        ({"held_back_rows": 9}, "retain_dataset: 3 rows do not fill one batch"),
        ({"verdict_rows": 0}, "verdict_rows: 0"),
        ({"verdict_samples": 0}, "verdict_samples: 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        trainer("no model is loaded", tmp_path, **options)


def test_save_model_writes_the_card_and_spares_a_users(knowing: Any, tmp_path: Path) -> None:
    run = trainer(knowing(), tmp_path, learning_rate=1e-9, max_steps=1)
    run.train()
    run.save_model()
    card = tmp_path / "README.md"
    assert "None was made" in card.read_text()
    verdict = run.verdict()
    run.save_model()
    assert f"Forgotten: {verdict.forgotten}" in card.read_text()
    assert "| forget_prob |" in card.read_text()
    assert "1900" not in card.read_text()  # what leaks is not for others
    card.write_text("My own card")
    run.save_model()
    assert card.read_text() == "My own card"


def test_samples_of_a_row_differ(tmp_path: Path) -> None:
    run = trainer(build_model(), tmp_path, verdict_samples=4, per_device_eval_batch_size=1)
    judge = run.run_verdict.judge
    assert judge is not None
    found = judge.measure(run.model, run.processing_class, run.accelerator)
    assert all(len(set(row["sampled"])) == 4 for row in found["forget"])
