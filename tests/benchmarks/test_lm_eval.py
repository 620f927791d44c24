"""lm-evaluation-harness behind the evaluator interface, with a stand-in for it."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.benchmarks.lm_eval import LmEvalEvaluator, _task_manager, flat_metrics
from unlearn_hf.cli.arguments import DataArguments
from unlearn_hf.cli.checks import check_evaluation_options
from unlearn_hf.cli.evaluation_arguments import EvaluationArguments
from unlearn_hf.cli.main import BAD_INPUT, main

HARNESS = """
import random
import torch

calls = []

def simple_evaluate(model, tasks, task_manager, limit, apply_chat_template, log_samples):
    random.seed(0)
    torch.manual_seed(0)
    assert not model.model.training and not torch.is_grad_enabled()
    model.tokenizer.padding_side = "left"
    calls.append((tasks, limit, model.batch_size))
    results = {task: {"alias": task, "acc,none": 0.25, "acc_stderr,none": 0.01} for task in tasks if task != "silent"}
    results["gsm8k"] = {"exact_match,strict-match": 0.5, "exact_match_stderr,strict-match": "N/A"}
    return {"results": results, "groups": {"mmlu": {"acc,none": 0.25}}, "versions": {"mmlu": 2}}
"""
MODEL = """
class HFLM:
    def __init__(self, pretrained, tokenizer, batch_size):
        self.model, self.tokenizer, self.batch_size = pretrained, tokenizer, batch_size
"""


TASKS = """
class TaskManager:
    def __init__(self, include_path, include_defaults=True):
        self.include_path = include_path
        self.all_tasks = ["mmlu", "wmdp_bio", "silent"] if include_defaults else []
"""
OWN_TASK = """
task: own_capitals
dataset_path: json
dataset_kwargs:
  data_files:
    validation: {rows}
output_type: multiple_choice
validation_split: validation
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package = tmp_path / "site" / "lm_eval"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text(HARNESS)
    (package / "models" / "__init__.py").write_text("")
    (package / "tasks.py").write_text(TASKS)
    (package / "models" / "huggingface.py").write_text(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
        del sys.modules[name]
    _task_manager.cache_clear()


@pytest.mark.usefixtures("harness")
def test_metrics_file_and_model_left_alone(tmp_path: Path) -> None:
    import lm_eval

    model, tokenizer = build_model().train(), build_tokenizer()
    tokenizer.padding_side = "right"
    python, state = random.getstate(), torch.get_rng_state()
    evaluator = LmEvalEvaluator(["mmlu", "wmdp_bio"], limit=5, batch_size=3)
    found = evaluator(model, tokenizer, output_dir=tmp_path / "out")
    assert found == {"mmlu_acc": 0.25, "wmdp_bio_acc": 0.25, "gsm8k_exact_match_strict-match": 0.5}
    assert lm_eval.calls == [(["mmlu", "wmdp_bio"], 5, 3)]
    assert model.training
    assert tokenizer.padding_side == "right"
    assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), state)
    assert json.loads((tmp_path / "out" / "lm_eval.json").read_text())["metrics"] == found


@pytest.mark.usefixtures("harness")
def test_task_without_result() -> None:
    with pytest.raises(ValueError, match=r"no metric for \['silent'\]"):
        LmEvalEvaluator(["mmlu", "silent"])(build_model(), build_tokenizer())
    with pytest.raises(ValueError, match="harness has no 'wmdp_boi'; did you mean wmdp_bio"):
        LmEvalEvaluator(["mmlu", "wmdp_boi"])


@pytest.mark.usefixtures("harness")
@pytest.mark.parametrize("tasks", [[], "mmlu"])
def test_tasks_are_a_list(tasks: list[str]) -> None:
    with pytest.raises(ValueError, match="no list of task names"):
        LmEvalEvaluator(tasks)


def test_without_the_extra() -> None:
    if importlib.util.find_spec("lm_eval"):
        pytest.skip("lm_eval is installed here")
    message = r"pip install 'unlearn-hf\[lm-eval\]'"
    with pytest.raises(ImportError, match=message):
        LmEvalEvaluator(["mmlu"])
    (problem,) = check_evaluation_options(DataArguments(), EvaluationArguments(lm_eval_tasks=["mmlu"]))
    assert re.search(message, problem)


def test_numbers_alone_become_metrics() -> None:
    values = {"acc,none": float("nan"), "f1,none": 1, "f1_stderr,none": 0.1, "name": "x", "samples": 12}
    assert flat_metrics({"results": {"task": values}}) == {"task_f1": 1.0}


@pytest.mark.usefixtures("harness")
def test_command_line_adds_the_evaluator() -> None:
    from unlearn_hf.cli.data import load_data, make_evaluators

    arguments = EvaluationArguments(lm_eval_tasks=["mmlu"], max_evaluation_rows=3)
    data = load_data(DataArguments(benchmark="tofu", source="mini"))
    *_, last = make_evaluators(data, arguments, "auto", 512)
    assert isinstance(last, LmEvalEvaluator)
    assert (last.tasks, last.limit) == (["mmlu"], 3)


NEEDS_HARNESS = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="lm-evaluation-harness is not installed (pip install lm-eval): NOT tested with the real one",
)


@NEEDS_HARNESS
@pytest.mark.filterwarnings("default")  # the harness's own
def test_a_task_of_ones_own_with_the_real_harness(tmp_path: Path) -> None:
    rows = [{"question": f"Which is number {i}?", "choices": [str(i), "none"], "answer": 0} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text(OWN_TASK.format(rows=tmp_path / "rows.jsonl"))
    evaluator = LmEvalEvaluator(["own_capitals"], task_folder=str(tmp_path))
    assert 0 <= evaluator(build_model(), build_tokenizer())["own_capitals_acc"] <= 1


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, two text corpora and a task of one's own, in the working directory."""
    monkeypatch.chdir(tmp_path)
    build_model().save_pretrained("model")
    build_tokenizer().save_pretrained("model")
    Path("tasks").mkdir()
    for name, topic in (("forget", "The author Ada Moren wrote"), ("retain", "What was written in Oslo")):
        rows = [{"text": f"{topic} book {number}, and then book {number + 7}. " * 3} for number in range(6)]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"question": f"Which is number {i}?", "choices": [str(i), "none"], "answer": 0} for i in range(4)]
    Path("tasks/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("tasks/own.yaml").write_text(OWN_TASK.format(rows=tmp_path / "tasks" / "rows.jsonl"))
    return tmp_path


TASK = ["--lm_eval_tasks", "own_capitals", "--lm_eval_task_folder", "tasks"]
RMU = ["--config", str(Path(__file__).parents[2] / "configs" / "wmdp" / "rmu.yaml"), "--model_name_or_path", "model"]
RMU += ["--forget_file", "forget.jsonl", "--retain_file", "retain.jsonl", "--layer", "1", "--max_steps", "2"]
RMU += ["--trainable_parameters", r"layers\.[01]\.mlp\.down_proj", "--per_device_train_batch_size", "2"]
RMU += ["--use_cpu", "--bf16", "false", "--report_to", "none", "--activation_checkpointing", "false"]


@NEEDS_HARNESS
@pytest.mark.filterwarnings("default")  # the harness's own
def test_a_corpus_is_unlearned_and_judged_by_tasks(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unlearn", *RMU, *TASK, "--output_dir", "run"]) == 0
    found = json.loads((corpus / "run" / "lm_eval.json").read_text())["metrics"]
    assert 0 <= found["own_capitals_acc"] <= 1
    record = json.loads((corpus / "run" / "run.json").read_text())
    assert record["metrics"]["own_capitals_acc"] == found["own_capitals_acc"]
    assert record["configuration"]["forget_loss"] == "rmu"
    # Without any data: a model, or a run, on tasks alone.
    assert main(["evaluate", "--model_name_or_path", "model", *TASK]) == 0
    file = corpus / "model" / "evaluations" / "own" / "lm_eval.json"
    assert set(json.loads(file.read_text())["metrics"]) == set(found)
    before = file.read_bytes()
    capsys.readouterr()
    assert main(["evaluate", "--model_name_or_path", "model", *TASK]) == BAD_INPUT
    assert "holds results; --overwrite sets them aside" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert main(["evaluate", "--model_name_or_path", "run", *TASK, "--protocol", "official"]) == BAD_INPUT
    assert "protocol: 'official' has no effect" in capsys.readouterr().err
    assert main(["evaluate", "--model_name_or_path", "model", *TASK, "--protocol", "official"]) == BAD_INPUT
    assert "protocol: 'official' has no effect on tasks alone" in capsys.readouterr().err
    assert main(["evaluate", "--model_name_or_path", "run", *TASK, "--overwrite"]) == 0
    assert main(["evaluate", "--model_name_or_path", "model", *TASK, "--overwrite"]) == 0
    assert (corpus / "model" / "evaluations" / "own.backup-1" / "lm_eval.json").read_bytes() == before


@pytest.mark.usefixtures("corpus", "harness")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lm_eval_tasks", "mmlu", "--lm_eval_task_folder", "nowhere"], "'nowhere' is no folder"),
        (["--lm_eval_tasks", "none", "--lm_eval_task_folder", "tasks"], "lm-evaluation-harness has no 'none'"),
        (["--lm_eval_tasks", "mlmu"], "has no 'mlmu'; did you mean mmlu"),
        (["--lm_eval_task_folder", "tasks"], "has no effect without lm_eval_tasks"),
    ],
)
def test_bad_tasks_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for verb in (["unlearn", *RMU, "--lm_eval_tasks", "[]", "--output_dir", "run"], ["evaluate", *RMU[2:4]]):
        assert main([*verb, *words]) == BAD_INPUT
        told = capsys.readouterr().err.strip()
        assert message in told
        assert "\n" not in told
    assert not Path("run/run.json").exists()
