"""What README and docs show does what they say: examples and commands run, in small."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.pages import README, ROOT, blocks, check_command, commands, relative
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.audit.base import AUDIT_ATTACKS
from unlearn_hf.benchmarks.base import BENCHMARKS
from unlearn_hf.cli.main import main
from unlearn_hf.cli.verbs import VERBS
from unlearn_hf.evaluation.attacks.base import ATTACKS
from unlearn_hf.evaluation.metrics.catalog import METRICS
from unlearn_hf.methods import METHODS
from unlearn_hf.objectives import FORGET_OBJECTIVES, RETAIN_OBJECTIVES

EXAMPLES = [path for path in sorted((ROOT / "docs" / "extending").glob("*.md")) if path.stem != "index"]
PAGES_THAT_RUN = [ROOT / "docs" / name for name in ("architecture.md", "sweep.md")]
REGISTRIES: tuple[Any, ...] = (
    BENCHMARKS,
    VERBS,
    ATTACKS,
    AUDIT_ATTACKS,
    METRICS,
    FORGET_OBJECTIVES,
    RETAIN_OBJECTIVES,
)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small model in the folder `model` of the working directory."""
    monkeypatch.chdir(tmp_path)
    build_model().save_pretrained("model")
    build_tokenizer().save_pretrained("model")
    return "model"


@pytest.fixture
def registries() -> Iterator[None]:
    """What an example registers is taken out again."""
    before = [set(each) for each in REGISTRIES]
    methods = set(METHODS)
    yield
    for registry, names in zip(REGISTRIES, before, strict=True):
        for name in set(registry) - names:
            registry.remove(name)
    for name in set(METHODS) - methods:
        del METHODS[name]


def execute(path: Path, text: str) -> None:
    module = ModuleType("example")
    sys.modules["example"] = module
    try:
        exec(compile(text, relative(path), "exec"), module.__dict__)
    finally:
        del sys.modules["example"]


@pytest.mark.parametrize("path", [*EXAMPLES, *PAGES_THAT_RUN], ids=relative)
def test_example_runs(path: Path, model: str, registries: None) -> None:
    execute(path, "\n".join(blocks(path, "python")))


def test_every_kind_of_extension_has_a_page() -> None:
    assert {path.stem for path in EXAMPLES} == {"objective", "method", "metric", "attack", "benchmark", "verb"}


def test_the_lines_of_python_in_the_readme_run(model: str) -> None:
    text, _ = blocks(README, "python")
    for old, new in (
        ('source="hub"', 'source="mini"'),
        ('"open-unlearning/tofu_Llama-3.2-1B-Instruct_full"', repr(model)),
        ("num_train_epochs=5", "max_steps=1, use_cpu=True, verdict=False, per_device_train_batch_size=2"),
        ("TofuEvaluator(tofu)", "TofuEvaluator(tofu, max_rows=2, max_new_tokens=2)"),
    ):
        assert old in text
        text = text.replace(old, new)
    execute(README, text)


def own_rows() -> None:
    """Two files of rows in the working directory."""
    for name, count in (("forget", 4), ("retain", 12)):
        rows = [{"question": f"Who is author {i}?", "answer": f"It is {name} {i}."} for i in range(count)]
        Path(f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_the_lines_for_rows_of_your_own_run(model: str) -> None:
    _, text = blocks(README, "python")
    own_rows()
    for old, new in (('"path/to/model"', repr(model)), ('"runs/mine"', '"runs/mine", max_steps=1, use_cpu=True')):
        assert old in text
        text = text.replace(old, new)
    with pytest.warns(UserWarning, match="did not know these rows"):
        execute(README, text)


def run_in_order(path: Path, changes: dict[str, str]) -> None:
    """Run what a page shows, the Python first, with `changes` of options, each of which must be there."""
    execute(path, "\n".join(blocks(path, "python")))
    text = "\n".join(commands(path))
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    for command in text.splitlines():
        assert main(shlex.split(command, comments=True)[1:]) == 0, command


FEW = "--use_cpu true --max_steps 1 --per_device_train_batch_size 2 --max_new_tokens 2 --report_to none"
MINI = "--model_name_or_path model --source mini --max_evaluation_rows 2"
README_RUNS: dict[str, tuple[dict[str, str], str]] = {
    "unlearn-hf unlearn --method": ({"path/to/model": "model"}, f"{FEW} --verdict_samples 1"),
    "unlearn-hf unlearn --config": ({}, f"{MINI} {FEW} --verdict false --output_dir runs/a"),
    "unlearn-hf finetune": ({}, f"{MINI} {FEW} --subset retain --output_dir runs/retain"),
    "unlearn-hf evaluate --model": ({"runs/x": "runs/a"}, "--source mini --max_evaluation_rows 2 --max_new_tokens 2"),
    "unlearn-hf evaluate --from_log": ({"TOFU_EVAL.json": "runs/a", "retain_log.json": "runs/retain"}, ""),
    "unlearn-hf report": ({"runs/b": "runs/mine"}, ""),
    "unlearn-hf ask": ({}, "--max_new_tokens 2"),
    "unlearn-hf audit": ({}, "--attacks memorisation --max_new_tokens 2"),
    "unlearn-hf list": ({}, ""),
    "accelerate launch": ({}, f"{MINI} {FEW} --verdict false --output_dir runs/launched"),
}
"""What a command of the README is made small with: words that are replaced, words that are added. Tests of
training start several processes; here the launched words run in this one."""


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_commands_of_the_readme_run(model: str) -> None:
    own_rows()
    Path("configs").symlink_to(ROOT / "configs")
    run = set()
    for command in (" ".join(line.split()) for line in commands(README) if not line.startswith("make ")):
        check_command(command)
        (beginning,) = [each for each in README_RUNS if command.startswith(each)]
        replaced, added = README_RUNS[beginning]
        for old, new in replaced.items():
            assert old in command
            command = command.replace(old, new)
        words = shlex.split(command, comments=True)
        words = words[words.index("unlearn_hf" if words[0] == "accelerate" else "unlearn-hf") + 1 :]
        assert main([*words, *added.split()]) == 0, command
        run.add(beginning)
    assert run == set(README_RUNS)


OWN_DATA = ROOT / "docs" / "own_data.md"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_story_of_own_data_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    few = "--max_steps 2 --use_cpu true"
    changes = {
        "--num_train_epochs 40": few,
        "--use_lora true": f"--use_lora true {few} --max_new_tokens 4 --verdict_samples 1 --verdict_rows 2",
    }
    run_in_order(OWN_DATA, changes)
    shown = capsys.readouterr().out
    assert shown.count("before") >= 3
    assert "largest difference" in shown
    assert Path("runs/report/report.html").is_file()
    assert json.loads(Path("runs/second/verdict.json").read_text())["known_before"] is False
    assert json.loads(Path("runs/merged/merge.json").read_text())["merged"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_story_of_own_data_ends_as_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_in_order(OWN_DATA, {"--output_dir runs/taught": "--output_dir runs/taught --use_cpu true"})
    for run in ("first", "second"):
        verdict = json.loads(Path(f"runs/{run}/verdict.json").read_text())
        assert verdict["known_before"]
        assert verdict["changed"]
        assert verdict["after"]["forget_prob"] < 0.1 < 0.9 < verdict["before"]["forget_prob"]
        assert verdict["kept"] in ("yes", "partly")
    merge = json.loads(Path("runs/merged/merge.json").read_text())
    for name, value in merge["adapter"].items():
        assert merge["merged"][name] == pytest.approx(value, abs=0.02), name
