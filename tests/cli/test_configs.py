"""Every configuration file parses, and so does every combination that they are made for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from unlearn_hf.cli.training_run import TrainingRun
from unlearn_hf.cli.verbs import finetune, unlearn
from unlearn_hf.methods import METHODS

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
TOFU = CONFIGS / "tofu"
FILES = sorted(CONFIGS.rglob("*.yaml"))
TOFU_METHODS = ("graddiff", "npo", "ngdiff", "eupmu")
MODELS = sorted(path.stem for path in (TOFU / "models").glob("*.yaml"))
SPLITS = {"forget01": 0.01, "forget05": 0.05, "forget10": 0.1}
# bf16 needs a GPU or this
ON_CPU = ("--use_cpu", "true")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parse(path: Path) -> TrainingRun:
    """Parse a file with the verb it is for, adding a method where it is for all of them."""
    words = ["--config", str(path), *ON_CPU]
    if path.parent.name == "base_models" or path.stem in ("target", "retain"):
        return finetune.parse(words)
    return unlearn.parse(words if "method:" in path.read_text() else [*words, "--method", "npo"])


def test_there_are_files() -> None:
    assert len(FILES) >= 20
    assert {path.stem for path in (CONFIGS / "mini").glob("*.yaml")} == {"unlearning", *METHODS}
    assert set(TOFU_METHODS) <= {path.stem for path in TOFU.glob("*.yaml")}
    assert [path.stem for path in sorted((TOFU / "base_models").glob("*.yaml"))] == MODELS
    assert not list(CONFIGS.rglob("*.yml"))


@pytest.mark.parametrize("path", [file for file in FILES if file.parent.name != "accelerate"], ids=relative)
def test_every_file_parses(path: Path) -> None:
    run = parse(path)
    assert run.model.model_name_or_path


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_every_file_begins_with_its_launch_line(path: Path) -> None:
    header = re.match(r"(#.*\n)+", path.read_text())
    assert header, "no comment at the top"
    launch = header.group().replace("\\\n#", "")
    assert re.search(r"unlearn-hf \w+ --config|scripts/launch_\w+\.sh|accelerate launch --config_file", launch)
    named = re.findall(r"configs/\S+\.yaml", launch)
    assert named
    for name in named:
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", TOFU_METHODS)
def test_every_method_with_every_model_and_split(method: str, model: str, split: str) -> None:
    files = [str(TOFU / f"{method}.yaml"), str(TOFU / "models" / f"{model}.yaml")]
    run = unlearn.parse(["--config", *files, "--split", split, *ON_CPU])
    chosen = yaml.safe_load((TOFU / "models" / f"{model}.yaml").read_text())
    assert run.method == method
    assert isinstance(run.training, METHODS[method].config_class)
    assert run.model.model_name_or_path == chosen["model"]["model_name_or_path"]
    assert (run.data.split, run.data.benchmark) == (split, "tofu")
    assert run.training.num_train_epochs == 10
    assert run.training.learning_rate == float(chosen["recipe"]["learning_rate"])
    assert run.folder.name.startswith(f"tofu_{split}_")
    assert run.folder.name.endswith(method)


def test_mini_files_do_what_the_demonstration_does() -> None:
    from unlearn_hf.cli.demo import UNLEARNING, DemoSettings

    for method, options in UNLEARNING.items():
        training = unlearn.parse(["--config", str(CONFIGS / "mini" / f"{method}.yaml")]).training
        assert {name: getattr(training, name) for name in options} == options
        assert training.num_train_epochs == DemoSettings().unlearning_epochs


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("subset", ["full", "retain"])
def test_target_and_retain_model_of_every_model(subset: str, model: str) -> None:
    name = {"full": "target", "retain": "retain"}[subset]
    files = [str(TOFU / f"{name}.yaml"), str(TOFU / "base_models" / f"{model}.yaml")]
    run = finetune.parse(["--config", *files, "--split", "forget05", *ON_CPU])
    assert run.data.subset == subset  # type: ignore[attr-defined]
    assert (run.training.num_train_epochs, run.training.warmup_steps) == (5, 0.2)
    assert run.training.learning_rate > 0


@pytest.mark.parametrize("folder", ["models", "base_models"])
def test_no_option_of_the_default_model_leaks_into_another(folder: str) -> None:
    contents = {path.stem: yaml.safe_load(path.read_text()) for path in (TOFU / folder).glob("*.yaml")}
    for section, values in contents["Llama-3.2-1B-Instruct"].items():
        for name, content in contents.items():
            assert set(values) <= set(content[section]), f"{name} leaves {section} open"


def test_the_smollm2_target_is_where_its_fine_tuning_leaves_it() -> None:
    files = [str(TOFU / "target.yaml"), str(TOFU / "base_models" / "SmolLM2-135M-Instruct.yaml")]
    target = finetune.parse(["--config", *files])
    unlearning = unlearn.parse(
        ["--config", str(TOFU / "npo.yaml"), str(TOFU / "models" / "SmolLM2-135M-Instruct.yaml")]
    )
    assert Path(str(unlearning.model.model_name_or_path)).name == target.folder.name


@pytest.mark.parametrize("path", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=relative)
def test_accelerate_accepts_its_files(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.mixed_precision == "no"
    assert config.num_processes == (1 if path.stem == "single" else 2)


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("launch_*.sh")), ids=relative)
def test_launch_scripts_name_files_that_are_there(path: Path) -> None:
    text = path.read_text()
    for name in re.findall(r"configs/\S+?\.yaml", text):
        assert (ROOT / name).is_file(), name
    assert path.stat().st_mode & 0o100
