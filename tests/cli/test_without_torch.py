"""What a user mistypes is told without importing torch, and so is what `list` and `--help` print."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from unlearn_hf.cli import declared
from unlearn_hf.cli.parsing import field_names
from unlearn_hf.cli.typed_values import describe
from unlearn_hf.methods import METHODS
from unlearn_hf.training.finetuning_config import FinetuningConfig
from unlearn_hf.training.unlearning_config import UnlearningConfig

# Runs commands one after the other, in a process of its own, and says what each printed and which modules it took.
PROGRAM = """
import contextlib, io, json, sys
from unlearn_hf.cli.main import main
found = []
for words in json.load(sys.stdin):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = main(words)
    found.append([status, out.getvalue(), [name for name in ("torch", "transformers") if name in sys.modules]])
print(json.dumps(found))
"""
FILES = {
    "rows.jsonl": '{"question": "Who?", "answer": "Ada"}\n',
    "broken.jsonl": '{"question": "Who?", "answer": "Ada"}\n{"question": ',
    "broken.yaml": "method: npo\nlearning_rate: [1\n",
    "unknown.yaml": "method: npo\nlearning_rat: 1e-5\n",
    "list.yaml": "- npo\n",
    "model/config.json": '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}',
    "model/model.safetensors": "\x02" + "\0" * 7 + "{}",
    "model/tokenizer.json": "{}",
    "cut/config.json": '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}',
    "cut/model.safetensors": "\x20",
    "broken/config.json": "{",
    "empty/config.json": '{"model_type": "llama"}',
    "bert/config.json": '{"model_type": "bert", "architectures": ["BertForMaskedLM"]}',
    "t5/config.json": '{"model_type": "t5", "is_encoder_decoder": true}',
    "remote/config.json": '{"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "code.Mine"}}',
    "unknown/config.json": '{"model_type": "llama9"}',
    "list/config.json": "[]",
}
MODEL = ["--model_name_or_path", "{folder}/model"]
TOFU = ["--benchmark", "tofu", "--source", "mini"]
OWN = ["--forget_file", "{folder}/rows.jsonl", "--retain_file"]
ERRORS: dict[str, tuple[list[str], str]] = {
    "no such verb": (["unlern"], "'unlern' is not known; did you mean unlearn?"),
    "unknown option": (["unlearn", "--method", "npo", "--learning_rat", "1"], "learning_rat: unknown; did you mean"),
    "an option of another method": (
        ["unlearn", "--method", "npo", "--epsilon", "0.1"],
        "method npo has no such option",
    ),
    "an option of another verb": (["finetune", "--epsilon", "0.1"], "epsilon: unknown"),
    "no number": (["unlearn", "--method", "npo", "--learning_rate", "fast"], "learning_rate: 'fast' is not a number"),
    "no such objective": (["unlearn", "--method", "npo", "--forget_loss", "npoo"], "did you mean npo?"),
    "no method": (["unlearn"], "method: missing; choose one of graddiff, npo"),
    "no such method": (["unlearn", "--method", "eupmo"], "'eupmo' is not known; did you mean eupmu?"),
    "an objective as method": (
        ["unlearn", "--method", "simnpo"],
        "it is an objective: choose a method, and add --forget_loss simnpo.",
    ),
    "an objective of the retain set as method": (["unlearn", "--method", "kl"], "add --retain_loss kl."),
    "no such file": (["unlearn", "--config", "{folder}/none.yaml"], "none.yaml' cannot be read"),
    "broken YAML": (["unlearn", "--config", "{folder}/broken.yaml"], "broken.yaml, line "),
    "a list as YAML": (["unlearn", "--config", "{folder}/list.yaml"], "the file holds list, not fields"),
    "unknown key in YAML": (["unlearn", "--config", "{folder}/unknown.yaml"], "learning_rat: unknown; did you mean"),
    "no model": (["unlearn", "--method", "npo", *TOFU], "model_name_or_path: missing"),
    "no such model": (["finetune", "--model_name_or_path", "/no/such", *TOFU], "'/no/such' is not there"),
    "no such split": (
        ["finetune", *MODEL, *TOFU, "--split", "forget11"],
        "split: 'forget11' is not known; choose one of forget10",
    ),
    "a split of the other benchmark": (
        ["finetune", *MODEL, "--benchmark", "muse", "--source", "mini", "--split", "forget10"],
        "split: 'forget10' is not known; choose one of news",
    ),
    "no such rows": (["unlearn", "--method", "npo", *MODEL, *OWN, "{folder}/none.jsonl"], "none.jsonl' is not there"),
    "broken rows": (["unlearn", "--method", "npo", *MODEL, *OWN, "{folder}/broken.jsonl"], "broken.jsonl, line 2"),
    "a stray word": (["finetune", *OWN, "{folder}/rows.jsonl", "stray"], "'stray' belongs to no option"),
    "a broken model": (["finetune", "--model_name_or_path", "{folder}/broken", *TOFU], "config.json' is no JSON"),
    "a model that is a list": (
        ["finetune", "--model_name_or_path", "{folder}/list", *TOFU],
        "holds list, not",
    ),
    "no weights": (["finetune", "--model_name_or_path", "{folder}/empty", *TOFU], "holds no weights"),
    "an encoder": (["finetune", "--model_name_or_path", "{folder}/bert", *TOFU], "is an encoder (BertForMaskedLM)"),
    "an encoder and a decoder": (["evaluate", "--model_name_or_path", "{folder}/t5", *TOFU], "an encoder and a dec"),
    "remote code": (["evaluate", "--model_name_or_path", "{folder}/remote", *TOFU], "add --trust_remote_code"),
    "an unknown model": (["evaluate", "--model_name_or_path", "{folder}/unknown", *TOFU], "model_type 'llama9'"),
    "truncated weights": (
        ["evaluate", "--model_name_or_path", "{folder}/cut", *TOFU],
        "model.safetensors' is cut short: 1 bytes",
    ),
    "a tokenizer that is none": (
        ["evaluate", *MODEL, "--tokenizer_name_or_path", "{folder}/empty", *TOFU],
        "tokenizer_name_or_path: the folder",
    ),
    "an output folder under a file": (
        ["finetune", *MODEL, *TOFU, "--output_dir", "{folder}/rows.jsonl/x"],
        "rows.jsonl' is a file",
    ),
    "no such reference": (["evaluate", *MODEL, *TOFU, "--retain_results", "no.json"], "no.json' is not there"),
    "no such dimension": (
        ["sweep", "--method", "npo", *MODEL, *TOFU, "--space", "learning_rat=1e-5:1e-3"],
        "learning_rat: unknown; did you mean learning_rate?",
    ),
    "a sweep without rows": (
        ["sweep", "--method", "npo", *MODEL, *OWN, "{folder}/none.jsonl", "--space", "beta=0.1,0.2"],
        "none.jsonl' is not there",
    ),
    "a study that is a folder": (
        ["sweep", "--method", "npo", *MODEL, *TOFU, "--space", "beta=0.1,0.2", "--study", "{folder}"],
        "cannot be used",
    ),
    "nothing to audit": (["audit", "{folder}/model"], "is no run folder"),
    "an unknown attack": (["audit", "{folder}/model", "--attacks", "sampeling"], "did you mean sampling?"),
    "nothing is listed so": (["list", "model"], "'model' is not listed"),
}
PAGES = (
    ["--help"],
    ["--version"],
    ["list"],
    ["unlearn", "--help"],
    ["finetune", "--help"],
    ["evaluate", "--help"],
    ["sweep", "--help"],
    ["audit", "--help"],
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Status, output and modules of every command, from one process."""
    folder = tmp_path_factory.mktemp("input")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    commands = [[word.format(folder=folder) for word in words] for words, _ in ERRORS.values()]
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([*commands, *PAGES]),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert found.returncode == 0, found.stderr
    return dict(zip([*ERRORS, *map(" ".join, PAGES)], json.loads(found.stdout), strict=True))


@pytest.mark.parametrize("name", ERRORS)
def test_errors_need_no_torch(outcomes, name):
    status, output, modules = outcomes[name]
    assert status == 2, output
    assert output.startswith("error: ")
    assert ERRORS[name][1] in output
    assert not modules


@pytest.mark.parametrize("page", [" ".join(page) for page in PAGES])
def test_pages_need_no_torch(outcomes, page):
    status, output, modules = outcomes[page]
    assert status == 0
    assert output
    assert not modules


@pytest.mark.parametrize("name", ["no such file", "broken YAML", "a list as YAML"])
def test_what_cannot_be_read_is_the_only_problem(outcomes, name):
    assert "method: missing" not in outcomes[name][1]


@pytest.mark.parametrize(
    "config", [FinetuningConfig, UnlearningConfig, *(each.config_class for each in METHODS.values())]
)
def test_declared_fields_are_those_of_the_class(config):
    stand_in = declared.stand_in(config.__name__)
    assert sorted(field_names([stand_in])) == sorted(field_names([config]))
    real, found = get_type_hints(config), get_type_hints(stand_in)
    known = [name for name in found if found[name] != declared.UNKNOWN]
    assert {name: describe(found[name]) for name in known} == {name: describe(real[name]) for name in known}
    assert {"learning_rate", "max_steps", "bf16", "report_to", "output_dir"} <= set(known)
    choices = {item.name: item.metadata.get("choices") for item in dataclasses.fields(config)}
    for item in dataclasses.fields(stand_in):
        assert item.metadata["choices"] in (None, choices[item.name])


def test_declared_methods_are_those_of_the_registry():
    assert list(declared.methods()) == list(METHODS)
    for name, method in declared.methods().items():
        assert method.paper == METHODS[name].paper
        assert method.config == METHODS[name].config_class.__name__
        assert method.summary == METHODS[name].__doc__.partition("\n")[0]
        assert method.uses_retain_rows == METHODS[name].uses_retain_rows
