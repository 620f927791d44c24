"""Fluency of answers by a sequence classifier."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState
from transformers import AutoModelForSequenceClassification

from tests.evaluation.rows import qa_rows, tiny_tofu
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf import PairsEvaluator, TofuEvaluator
from unlearn_hf.cli.main import BAD_INPUT, main
from unlearn_hf.evaluation.fluency import MAX_TOKENS, FluencyClassifier


def test_scores_are_the_share_of_the_label_one_text_at_a_time(classifier_folder: Path) -> None:
    texts = {"a": "Ada Moren wrote it in Oslo.", "b": "", "c": "What " * 50}
    model = AutoModelForSequenceClassification.from_pretrained(classifier_folder).eval()
    tokenizer = build_tokenizer()
    for label, place in (("clean", 0), ("Noise", 1)):
        found = FluencyClassifier(str(classifier_folder), label).scores(texts, torch.device("cpu"), batch_size=2)
        for key, text in texts.items():
            ids = tokenizer(text or "</s>")["input_ids"][:MAX_TOKENS]
            with torch.no_grad():
                shares = model(torch.tensor([ids])).logits.softmax(-1)[0] if text else None
            if shares is not None:
                assert found[key] == pytest.approx(shares[place].item(), abs=1e-6)
            assert 0 <= found[key] <= 1
    assert all(
        first + second == pytest.approx(1)
        for first, second in zip(
            FluencyClassifier(str(classifier_folder)).scores(texts, torch.device("cpu")).values(),
            FluencyClassifier(str(classifier_folder), "noise").scores(texts, torch.device("cpu")).values(),
            strict=True,
        )
    )


def test_evaluators_report_it(classifier_folder: Path) -> None:
    model, tokenizer = build_model(), build_tokenizer()
    tofu = TofuEvaluator(tiny_tofu(), max_new_tokens=5, fluency_model=str(classifier_folder))
    found = tofu(model, tokenizer)
    assert tofu.last_result is not None
    samples = tofu.last_result.samples
    judged = samples[samples["split"] == "forget"]["fluency"]
    assert found["forget_fluency"] == pytest.approx(judged.mean())
    assert samples[samples["split"] != "forget"]["fluency"].isna().all()
    assert {"uds_mem"} <= set(found)
    pairs = PairsEvaluator(
        {name: qa_rows(3, start=start) for name, start in (("forget", 0), ("retain", 10))},
        max_new_tokens=5,
        fluency_model=str(classifier_folder),
        fluency_label="noise",
    )
    assert 0 < pairs(model, tokenizer)["forget_fluency"] < 1


def test_an_interrupted_evaluation_goes_on(classifier_folder: Path, tmp_path: Path) -> None:
    model, tokenizer = build_model(), build_tokenizer()

    def make() -> TofuEvaluator:
        return TofuEvaluator(tiny_tofu(), max_new_tokens=5, fluency_model=str(classifier_folder), resume=True)

    expected = make()(model, tokenizer, output_dir=tmp_path / "whole")
    interrupted = make()
    interrupted.aggregate = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        interrupted(model, tokenizer, output_dir=tmp_path / "two")
    resumed = make()
    assert resumed.fluency is not None
    resumed.fluency.__dict__["_loaded"] = (None, torch.nn.Linear(1, 1))  # a text that is judged again would fail
    assert resumed(model, tokenizer, output_dir=tmp_path / "two") == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fluency_model", "{model}"], "fluency_model: .*name a sequence classifier"),
        (["--fluency_model", "./nowhere"], "fluency_model: './nowhere' is not there"),
        (
            ["--fluency_model", "{classifier}", "--fluency_label", "fine"],
            "'fine' is no label of .*noise",
        ),
        (["--fluency_label", "fine"], "fluency_label: 'fine' has no effect without fluency_model"),
        (
            ["--fluency_model", "{classifier}", "--benchmark", "muse", "--source", "mini"],
            "no effect on benchmark muse",
        ),
    ],
)
def test_bad_classifiers_are_one_line(
    words: list[str],
    message: str,
    classifier_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    build_model().save_pretrained("model")
    build_tokenizer().save_pretrained("model")
    words = [word.format(model="model", classifier=classifier_folder) for word in words]
    data = [] if "--benchmark" in words else ["--benchmark", "tofu", "--source", "mini"]
    assert main(["evaluate", "--model_name_or_path", "model", *data, *words]) == BAD_INPUT
    told = capsys.readouterr().err
    assert re.search(message, told)
    assert "Traceback" not in told


def test_from_the_command_line(classifier_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build_model().save_pretrained("model")
    build_tokenizer().save_pretrained("model")
    words = ["--benchmark", "tofu", "--source", "mini", "--max_evaluation_rows", "2", "--max_new_tokens", "3"]
    assert main(["evaluate", "--model_name_or_path", "model", *words, "--fluency_model", str(classifier_folder)]) == 0
    content = json.loads((tmp_path / "model" / "evaluations" / "tofu_forget10" / "evaluation.json").read_text())
    values = {metric["name"]: metric for metric in content["metrics"]}
    assert 0 < values["forget_fluency"]["value"] < 1
    assert values["utility"]["definition"] == "harmonic_model_utility_and_forget_fluency"


def _two_ranks(classifier: str, folder: str) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # of tests before, inherited from the parent process
    texts = {str(number): f"Ada Moren wrote book {number}." for number in range(5)}
    found = FluencyClassifier(classifier).scores(
        texts, torch.device("cpu"), batch_size=2, accelerator=Accelerator(cpu=True)
    )
    Path(folder, f"{os.getpid()}.json").write_text(json.dumps(found))


def test_two_processes_equal_one(classifier_folder: Path, tmp_path: Path) -> None:
    debug_launcher(_two_ranks, args=(str(classifier_folder), str(tmp_path)), num_processes=2)
    one, two = (json.loads(file.read_text()) for file in tmp_path.iterdir())
    texts = {key: f"Ada Moren wrote book {key}." for key in one}
    alone = FluencyClassifier(str(classifier_folder)).scores(texts, torch.device("cpu"))
    assert one == two == pytest.approx(alone, abs=1e-6)
    assert len(one) == 5
