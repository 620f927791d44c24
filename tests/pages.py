"""Pages of the documentation: what they show, and whether their commands are ones that can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from unlearn_hf.cli.parsing import build, collect_settings, field_names
from unlearn_hf.cli.verbs import VERBS, finetune, sweep, unlearn

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
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
