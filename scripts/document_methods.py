"""Write the tables of methods and objectives into README.md and docs/methods.md: `python scripts/document_methods.py`.

What stands between the marks is written from the registries; the rest of both files is written by hand and stays.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from unlearn_hf.methods import METHODS
from unlearn_hf.objectives import FORGET_OBJECTIVES, RETAIN_OBJECTIVES
from unlearn_hf.training.unlearning import UnlearningTrainer
from unlearn_hf.training.unlearning_config import UnlearningConfig

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "README.md", ROOT / "docs" / "methods.md")
BLOCK = re.compile(
    r"(<!-- (?P<name>[\w ]+): written by scripts/document_methods\.py -->\n).*?(<!-- end -->)", re.DOTALL
)


def summary_table() -> str:
    """A row for each method."""
    lines = ["| `--method` | what it does | paper |", "| --- | --- | --- |"]
    for name, trainer in METHODS.items():
        link = trainer.paper["url"]
        label = link.rpartition("/")[2].rpartition("=")[2]
        lines.append(f"| `{name}` | {_cell(_first_line(trainer))} | [{label}]({link}) |")
    return "\n".join(lines) + "\n"


def method_block(trainer: type[UnlearningTrainer]) -> str:
    """What a method does, by its docstring, and the options that are its own or have another default."""
    text = inspect.getdoc(trainer) or ""
    lines = [text, "", f"Gradients: {_gradients(trainer)}.", ""]
    shared = {each.name: _default(each) for each in dataclasses.fields(UnlearningConfig)}
    rows = []
    for each in dataclasses.fields(trainer.config_class):
        default = _default(each)
        if each.name not in shared or shared[each.name] != default:
            rows.append(f"| `{each.name}` | `{default}` | {_cell(each.metadata.get('help', ''))} |")
    if rows:
        lines += ["| option | default | what it is |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


def objective_table() -> str:
    """A row for each objective, with its parameters."""
    lines = ["| objective | side | what it is | parameters | paper |", "| --- | --- | --- | --- | --- |"]
    for side, registry in (("forget", FORGET_OBJECTIVES), ("retain", RETAIN_OBJECTIVES)):
        for name, each in registry.items():
            options = ", ".join(f"`{item.name}` ({_default(item)})" for item in dataclasses.fields(each.parameters))
            lines.append(f"| `{name}` | {side} | {_cell(each.summary)} | {options} | {_cell(each.paper)} |")
    return "\n".join(lines) + "\n"


def filled(text: str) -> str:
    """A page with its blocks written anew."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{_content(found['name']).rstrip()}\n\n{found[3]}", text)


def _content(name: str) -> str:
    if name == "methods":
        return summary_table()
    return objective_table() if name == "objectives" else method_block(METHODS[name.removeprefix("method ")])


def _gradients(trainer: type[UnlearningTrainer]) -> str:
    if trainer.elementwise_rule is not UnlearningTrainer.elementwise_rule:
        return "two, combined element by element"
    if trainer.needs_gram:
        return "two, kept apart; their weights follow from their inner products"
    if trainer.gradient_level is not UnlearningTrainer.gradient_level:
        return "one, or two kept apart where the weights follow from the losses of the whole step"
    return "one, of the weighted losses"


def _default(item: Any) -> Any:
    return item.default_factory() if item.default is dataclasses.MISSING else item.default


def _first_line(trainer: type) -> str:
    return (trainer.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def _cell(text: str) -> str:
    return text.replace("||", "‖").replace("|", r"\|")


if __name__ == "__main__":
    for file in FILES:
        file.write_text(filled(file.read_text(encoding="utf-8")), encoding="utf-8")
