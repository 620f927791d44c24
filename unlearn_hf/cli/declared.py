"""What options, methods and objectives declare, read from their source files.

Importing torch and transformers takes seconds; a wrong name is told, and `list` printed, without them.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from unlearn_hf.common import checks
from unlearn_hf.objectives import FORGET_OBJECTIVES, RETAIN_OBJECTIVES
from unlearn_hf.objectives.registry import parameter_options

_PACKAGE = Path(__file__).parents[1]
UNKNOWN = list[Any] | Any  # what a field takes whose type only an import would tell


@dataclass(frozen=True)
class DeclaredMethod:
    """A method as its source declares it.

    Attributes:
        summary: first line of the trainer's docstring.
        paper: title, url and citation.
        config: name of its configuration class.
        uses_retain_rows: whether it trains on rows to keep.
    """

    summary: str
    paper: dict[str, str]
    config: str
    uses_retain_rows: bool


@cache
def methods() -> dict[str, DeclaredMethod]:
    """The methods by name, in the order of their registry."""
    found = {}
    registry = _assigned(_tree(_PACKAGE / "methods/__init__.py"), "METHODS")
    assert isinstance(registry, ast.Dict)
    for key, value in zip(registry.keys, registry.values, strict=True):
        assert isinstance(key, ast.Constant)
        assert isinstance(value, ast.Name)
        trainer = _classes()[value.id]
        config = _inherited(value.id, "config_class")
        assert isinstance(config, ast.Name)
        paper = ast.literal_eval(_inherited(value.id, "paper") or ast.Dict([], []))
        summary = (ast.get_docstring(trainer) or "").partition("\n")[0]
        uses_retain_rows = _inherited(value.id, "uses_retain_rows")
        uses = uses_retain_rows is None or bool(ast.literal_eval(uses_retain_rows))
        found[str(key.value)] = DeclaredMethod(summary, paper, config.id, uses)
    return found


@cache
def stand_in(config: str) -> type:
    """A dataclass with the fields, types and choices of the configuration class `config`, and no checks of its own.

    Its instances say what was asked for; what the values mean is known once the real class is imported.
    """
    fields: dict[str, tuple[str, Any, Any]] = {}
    for each in _lineage(config):
        names = _constants(each)
        for node in _classes()[each].body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                hint = _evaluate(node.annotation, {"Any": Any, "Literal": Literal}, UNKNOWN)
                if "ClassVar" not in ast.dump(node.annotation):
                    metadata = {"choices": _choices(node.value, names)}
                    item = dataclasses.field(default=None, metadata=metadata)
                    fields[node.target.id] = (node.target.id, hint, item)
    if "UnlearningConfig" in _lineage(config):
        for name, option in parameter_options().items():
            fields[name] = (name, option.type | None, dataclasses.field(default=None, metadata={"choices": None}))
    return dataclasses.make_dataclass(config, list(fields.values()))


def _choices(value: ast.expr | None, names: dict[str, Any]) -> Any:
    """The `choices` in the metadata of a field, as far as the source tells."""
    for node in ast.walk(value) if value is not None else ():
        if isinstance(node, ast.keyword) and node.arg == "choices":
            return _evaluate(node.value, names, None)
        if isinstance(node, ast.Dict):  # transformers has them in `metadata`
            for key, entry in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "choices":
                    return _evaluate(entry, names, None)
    return None


def _evaluate(node: ast.expr, names: dict[str, Any], otherwise: Any) -> Any:
    """The value of an expression of our own source or of transformers', or `otherwise` when it needs an import."""
    try:
        return eval(compile(ast.Expression(node), "<declared>", "eval"), dict(names))
    except (NameError, TypeError, AttributeError):
        return otherwise


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def _classes() -> dict[str, ast.ClassDef]:
    """The classes of our methods, of our training configurations, and transformers' `TrainingArguments`."""
    return {node.name: node for file in _files() for node in _tree(file).body if isinstance(node, ast.ClassDef)}


_CONFIGURATIONS = ("finetuning_config", "unlearning_config", "automatic_learning_rate")


@cache
def _files() -> tuple[Path, ...]:
    found = importlib.util.find_spec("transformers")  # finds the package, and does not import it
    assert found is not None
    assert found.submodule_search_locations is not None
    return (
        Path(found.submodule_search_locations[0]) / "training_args.py",
        *(_PACKAGE / f"training/{name}.py" for name in _CONFIGURATIONS),
        *sorted((_PACKAGE / "methods").glob("*.py")),
    )


def _constants(class_name: str) -> dict[str, Any]:
    """Names that choices may refer to: constants of the file that has the class, and the objectives."""
    names: dict[str, Any] = {name: value for name, value in vars(checks).items() if name.isupper()}
    names |= {"FORGET_OBJECTIVES": FORGET_OBJECTIVES, "RETAIN_OBJECTIVES": RETAIN_OBJECTIVES}
    tree = next(_tree(file) for file in _files() if _classes()[class_name] in _tree(file).body)
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _evaluate(node.value, {}, None)
            if value is not None:
                names[node.targets[0].id] = value
    return names


def _lineage(name: str) -> Iterator[str]:
    """A class and the classes it is made from, bases first."""
    for base in _classes()[name].bases:
        if isinstance(base, ast.Name) and base.id in _classes():
            yield from _lineage(base.id)
    yield name


def _inherited(class_name: str, attribute: str) -> ast.expr | None:
    """The expression that a class, or the nearest base of it, assigns to `attribute`."""
    for name in reversed(list(_lineage(class_name))):
        found = _assigned(_classes()[name], attribute)
        if found is not None:
            return found
    return None


def _assigned(where: ast.Module | ast.ClassDef, name: str) -> Any:
    """The expression assigned to `name` in a module or a class, if any."""
    for node in where.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value  # type: ignore[attr-defined]
    return None
