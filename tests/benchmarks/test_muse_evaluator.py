"""MUSE's evaluation of a model, on the mini corpus and on the real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM

from tests.tiny_models import build_model, build_tokenizer, with_bos
from unlearn_hf.benchmarks.from_logs import recompute
from unlearn_hf.benchmarks.muse.data import load_muse
from unlearn_hf.benchmarks.muse.evaluator import KNOWMEM_CUTS, MuseEvaluator, knowmem_rows
from unlearn_hf.data.labels import IGNORE_INDEX
from unlearn_hf.evaluation.engine import Engine
from unlearn_hf.evaluation.metrics.rouge import rouge_scores
from unlearn_hf.evaluation.requests import ContinuationRequest, TextRequest


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    model = build_model().eval()
    model.config.max_position_embeddings = 1024  # prompts with ten shots are long
    return model


def evaluate(model: LlamaForCausalLM, folder: Path | None = None, **options: object) -> MuseEvaluator:
    evaluator = MuseEvaluator(load_muse("news", "mini"), max_rows=4, max_length=256, **options)
    evaluator(model, build_tokenizer(), output_dir=folder)
    return evaluator


@pytest.fixture(scope="module")
def result(model: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> tuple[MuseEvaluator, Path]:
    folder = tmp_path_factory.mktemp("muse")
    return evaluate(model, folder), folder


def test_every_metric_and_no_constant_of_another_corpus(result: tuple[MuseEvaluator, Path]) -> None:
    evaluator, folder = result
    values = evaluator.last_result.values
    assert {"verbmem_forget", "knowmem_forget", "knowmem_retain", "mia_min_k_auc", "mia_loss_auc",
            "extraction_strength", "exact_memorization", "privleak_versus_half"} <= set(values)  # fmt: skip
    assert "privleak" not in values
    assert not [name for name in values if name.endswith(("_news", "_books"))]
    table = evaluator.last_result.samples
    assert table.groupby("split").size().to_dict() == dict.fromkeys(
        ("verbmem_forget", "knowmem_forget", "knowmem_retain", "forget", "holdout"), 4
    )
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["benchmark"] == "muse"
    again = recompute(folder)
    assert again == {name: value.value for name, value in values.items()}
    assert recompute(folder, folder)["privleak"] == 0


def test_min_k_is_over_all_tokens_after_the_first(model: LlamaForCausalLM) -> None:
    tokenizer = with_bos(build_tokenizer())
    text = "The vote was won by 41 ballots."
    request = TextRequest("forget", [{"text": text}])
    table = Engine("plain", max_length=256).run(model, tokenizer, [request])
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    assert ids[0, 0] == tokenizer.bos_token_id
    with torch.no_grad():
        log = torch.log_softmax(model(ids).logits[0, :-1], -1).gather(-1, ids[0, 1:, None]).squeeze(-1)
    lowest = log.double().sort().values[: int(0.4 * (ids.shape[1] - 1))]
    assert table["min_k"][0] == pytest.approx(-lowest.mean().item(), rel=1e-5)
    assert table["answer_tokens"][0] == ids.shape[1] - 1
    dropped = Engine("plain").run(model, tokenizer, [TextRequest("forget", [{"text": text}], drop_last_token=True)])
    lowest = log[:-1].double().sort().values[: int(0.4 * (ids.shape[1] - 2))]
    assert dropped["min_k"][0] == pytest.approx(-lowest.mean().item(), rel=1e-5)


def test_texts_are_cut_and_empty_ones_refused() -> None:
    encoder = Engine("plain", max_length=6).encoder(with_bos(build_tokenizer()))
    rows = [{"text": "one two three four five six seven"}]
    [whole] = TextRequest("forget", rows).texts(encoder)
    assert whole.input_ids == with_bos(build_tokenizer())(rows[0]["text"])["input_ids"]
    [text] = TextRequest("forget", rows, max_tokens=5).texts(encoder)
    assert text.input_ids == whole.input_ids[:6]  # BOS does not count
    assert text.labels == [IGNORE_INDEX, *text.input_ids[1:]]
    with pytest.raises(ValueError, match="forget, row 1: the text has no token"):
        TextRequest("forget", [{"text": "a word"}, {"text": ""}]).texts(encoder)


def test_continuations_by_hand(model: LlamaForCausalLM) -> None:
    tokenizer = with_bos(build_tokenizer())
    row = {"prompt": "Question: Where?\nAnswer: ", "reference": "in the old mill"}
    evaluator = MuseEvaluator(load_muse("news", "mini"))
    settings = evaluator.requests()[1].generation
    request = ContinuationRequest("knowmem_forget", [row], settings, cuts=KNOWMEM_CUTS)
    encoder = Engine("plain").encoder(tokenizer)
    [prompt] = request.prompts(encoder, settings)
    assert prompt.input_ids == tokenizer(row["prompt"])["input_ids"]  # trailing space and BOS are there
    key = "knowmem_forget/0/generation/0"
    made = request.table_row(0, {}, {key: " in the mill\nQuestion: Who?\n\nAnswer: he"}, encoder)
    assert made["generation"] == " in the mill"
    assert made["rouge_l_f1"] == pytest.approx(2 * (3 / 3) * (3 / 4) / (3 / 3 + 3 / 4))
    assert made["rouge_l_recall"] == 0.75


def test_reference_is_cut_with_bos_and_scored_after_a_space() -> None:
    tokenizer = with_bos(build_tokenizer())
    row = {"prompt": "The bridge over the river", "reference": "has been closed since Monday and will stay so"}
    request = ContinuationRequest("verbmem_forget", [row], Engine().generation, reference_tokens=5, scored=True)
    encoder = Engine("plain").encoder(tokenizer)
    ids = tokenizer(row["reference"])["input_ids"]
    made = request.table_row(0, {"verbmem_forget/0/reference/0": {"nll": 1.0, "tokens": 4}},
                             {"verbmem_forget/0/generation/0": "has"}, encoder)  # fmt: skip
    assert made["reference_text"] == tokenizer.decode(ids[1:5])  # four tokens beside BOS
    [text] = request.texts(encoder)
    scored = [label for label in text.labels if label != IGNORE_INDEX]
    assert len(scored) == 4
    assert tokenizer.decode(text.input_ids, skip_special_tokens=True) == f"{row['prompt']} {made['reference_text']}"
    assert text.labels[-4:] == scored


def test_texts_are_whole_by_default_and_cut_as_the_other_framework_does() -> None:
    """The authors of MUSE score every text whole, however many tokens a tokenizer makes of it."""
    muse = load_muse("news", "mini")
    long = " ".join(list(muse["privleak_forget"]["text"]) * 4)
    muse["privleak_forget"] = Dataset.from_list([{"text": long}])
    tokens = len(build_tokenizer()(long)["input_ids"])
    assert tokens > 2049
    for options, expected in (
        ({}, tokens),
        ({"max_length": 64}, tokens),
        ({"compatibility": "open_unlearning"}, 2048),
        ({"max_text_tokens": 100}, 100),
    ):
        evaluator = MuseEvaluator(muse, **options)
        [request] = [request for request in evaluator.requests() if request.split == "forget"]
        [text] = request.texts(evaluator.engine.encoder(build_tokenizer()))
        assert text.length == expected
        assert evaluator.settings()["max_text_tokens"] == (None if expected == tokens else expected)


def test_shots_come_before_each_question() -> None:
    [row] = knowmem_rows([{"question": "q", "answer": "a"}], [{"question": "x", "answer": "y"}] * 2)
    assert row == {"prompt": "Question: x\nAnswer: y\n\n" * 2 + "Question: q\nAnswer: ", "reference": "a"}


def test_batches_change_nothing(model: LlamaForCausalLM, result: tuple[MuseEvaluator, Path]) -> None:
    one = evaluate(model, batch_size=1).last_result.samples
    many = result[0].last_result.samples
    assert one["generation"].tolist() == many["generation"].tolist()
    for name in ("min_k", "answer_mean_nll", "rouge_l_f1"):
        torch.testing.assert_close(torch.tensor(one[name]), torch.tensor(many[name]), rtol=1e-5, atol=1e-6,
                                   equal_nan=True)  # fmt: skip


def test_compatibility(model: LlamaForCausalLM) -> None:
    theirs = evaluate(model, compatibility="open_unlearning").last_result
    assert theirs.values["verbmem_forget"].definition == "rouge_l_f1_stemmed"
    assert theirs.values["privleak"].value == theirs.values["privleak_versus_half"].value
    assert theirs.values["extraction_strength"].value > 0  # 1/n where nothing is predicted
    row = theirs.samples.iloc[0]
    assert row["rouge_l_f1"] == rouge_scores([row["generation"]], [row["reference_text"]], "rougeL", "fmeasure")[0]


def test_settings_are_part_of_the_result(model: LlamaForCausalLM, result: tuple[MuseEvaluator, Path]) -> None:
    """An interrupted evaluation is not continued under other settings."""
    ours = result[0].settings()
    theirs = MuseEvaluator(load_muse("news", "mini"), max_rows=4, compatibility="open_unlearning").settings()
    assert ours["requests"]["verbmem_forget"]["generation"]["max_new_tokens"] == 128
    assert ours["requests"] != theirs["requests"]


def test_data_without_parts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "forget.json").write_text('["a text"]')
    with pytest.raises(ValueError, match="has none of the parts that are evaluated"):
        MuseEvaluator(load_muse("news", tmp_path))


def test_real_prompts(data_root: Path) -> None:
    if not (data_root / "muse" / "news").is_dir():
        pytest.skip("UNLEARN_HF_DATA has no folder muse/news: NOT tested on real data")
    requests = {request.split: request for request in MuseEvaluator(load_muse("news", data_root / "muse")).requests()}
    assert {split: len(request.rows) for split, request in requests.items()} == dict.fromkeys(
        ("verbmem_forget", "knowmem_forget", "knowmem_retain", "forget", "holdout"), 100
    )
    prompt = requests["knowmem_forget"].rows[0]["prompt"]
    assert prompt.count("Question: ") == prompt.count("\nAnswer: ") == 11
    assert prompt.endswith("Question: What year did the Orkney Islands become part of Scotland?\nAnswer: ")
