"""What README and docs show is true: examples run, commands parse, pages are up to date (long: one test a page)."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import unlearn_hf
from tests.tiny_models import build_model, build_tokenizer
from unlearn_hf.audit.base import AUDIT_ATTACKS
from unlearn_hf.benchmarks.base import BENCHMARKS
from unlearn_hf.cli.main import main
from unlearn_hf.cli.parsing import build, collect_settings, field_names
from unlearn_hf.cli.verbs import VERBS, finetune, sweep, unlearn
from unlearn_hf.evaluation.attacks.base import ATTACKS
from unlearn_hf.evaluation.metrics.catalog import METRICS
from unlearn_hf.methods import METHODS
from unlearn_hf.objectives import FORGET_OBJECTIVES, RETAIN_OBJECTIVES

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
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
PROGRAMS = ("unlearn-hf", "accelerate", "make", "python")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[str]:
    """Commands in fenced and indented blocks, continued lines joined."""
    indented = "\n".join(line[4:] for line in path.read_text().splitlines() if line.startswith("    "))
    text = "\n".join([*blocks(path, "bash"), indented]).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if re.match(rf"\s*({'|'.join(PROGRAMS)}|\S+\.sh) ", line)]


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


def check_verb(verb: str, words: list[str]) -> None:
    """Parse as the verb would, without doing anything."""
    if verb == "unlearn":
        unlearn.parse([*words, "--use_cpu", "true"])
    elif verb == "finetune":
        finetune.parse([*words, "--use_cpu", "true"])
    elif verb == "sweep":
        sweep.first_look(words)
    else:
        unit = VERBS.find(verb)
        while unit.words and words and not words[0].startswith("--"):
            words = words[1:]
        if unit.arguments:
            build(unit.arguments, *collect_settings(words, field_names(unit.arguments)))
        else:
            assert not [word for word in words if word.startswith("--")]


def check_command(command: str) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "accelerate":
        assert (ROOT / words[words.index("--config_file") + 1]).is_file()
        words = ["unlearn-hf", *words[words.index("unlearn_hf") + 1 :]]
    if words[0] == "python" and words[1:3] == ["-m", "unlearn_hf"]:
        words = ["unlearn-hf", *words[3:]]
    if words[0] == "unlearn-hf":
        if not {"--help", "--help_all", "--version"} & set(words):
            check_verb(words[1], words[2:])
        else:
            assert words[1] in VERBS or words[1].startswith("--")
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words[1]
    else:
        script = words[1] if words[0] == "python" else words[0]
        text = (ROOT / script).read_text()
        # Options that scripts share stand in the module that has `add_arguments`.
        for module in re.findall(r"^from (\w+) import .*\badd_arguments\b", text, re.MULTILINE):
            text += (ROOT / script).with_name(f"{module}.py").read_text()
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert option in text or f"{option[2:]}: " in text, f"{script} has no {option}"


COMMANDS = [(path, command) for path in PAGES for command in commands(path)]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[f"{relative(path)}: {line}" for path, line in COMMANDS])
def test_command_parses(path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check_command(command)


def test_a_wrong_command_does_not() -> None:
    for wrong in (
        "unlearn-hf unlearn --method npo --learning_rat 1",
        "unlearn-hf lst",
        "make coffee",
        "python no.py x",
    ):
        with pytest.raises((ValueError, AssertionError, OSError)):
            check_command(wrong)


def test_the_readme_is_short_and_shows_commands() -> None:
    assert len(README.read_text().splitlines()) <= 120
    assert {"make demo", "make test"} <= {shlex.join(shlex.split(line, comments=True)) for line in commands(README)}
    assert len(COMMANDS) > 12


def test_methods_are_documented_from_the_registry() -> None:
    path = ROOT / "scripts" / "document_methods.py"
    spec = importlib.util.spec_from_file_location("document_methods", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for file in script.FILES:
        assert script.filled(file.read_text()) == file.read_text(), "run python scripts/document_methods.py"
    page = (ROOT / "docs" / "methods.md").read_text()
    for name in METHODS:
        section = page.partition(f"## `{name}`\n")[2].partition("\n## ")[0]
        assert {"**When.**", "**Knobs.**"} <= set(re.findall(r"\*\*\w+\.\*\*", section)), (
            f"advice on {name} is missing"
        )


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_files_that_are_named_are_there(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for name in re.findall(r"\]\(([^)#:]+)[)#]", text):
        assert (path.parent / name).exists(), name
    for name in re.findall(r"`((?:unlearn_hf|scripts|configs|docs|tests|notebooks)/[\w./-]+)`", text):
        assert (ROOT / name).exists() or "NAME" in name or "X" in name, name


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed (extra docs): the site was NOT built")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    for page in (ROOT / "docs").rglob("*.md"):
        where = page.relative_to(ROOT / "docs").with_suffix("")
        folder = where.parent if where.name == "index" else where
        assert (tmp_path / "site" / folder / "index.html").is_file(), page
    shutil.rmtree(tmp_path / "site")


def test_the_changelog_begins_with_this_version() -> None:
    (first, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first == unlearn_hf.__version__
