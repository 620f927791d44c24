"""YAML configuration files: sections flattened, files included, nothing silently overridden."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

INCLUDE = "include"
_LARGEST = 100_000  # values in a file
_PACKAGE = Path(__file__).parents[1]


class Loader(yaml.SafeLoader):
    """YAML with the scalars of version 1.2, so that `1e-5` is a number and `no` a word, and no key given twice."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the base class declares it so

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping.

        Raises:
            yaml.constructor.ConstructorError: for a key that comes twice, or is a list or a mapping.
        """
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", list("-+.0123456789")),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).replace(".inf", "inf").replace(".nan", "nan"))


Loader.add_constructor("tag:yaml.org,2002:float", _float)


def read_yaml(path: str | Path, fields: Collection[str]) -> tuple[dict[str, tuple[Any, str]], list[str]]:
    """Read a configuration file.

    A mapping under a key that is no field is a section: its name groups fields for the reader and means nothing.
    `include: other.yaml` (or a list), relative to the file, gives values that this file's own override.

    Args:
        path: the file; `configs/...` is one of those that come with the library where the working directory has none.
        fields: names of all fields, to tell fields that hold a mapping from sections.

    Returns:
        For each field its value and the file it came from, and the problems found.
    """
    return _read(_find(Path(path)), fields, ())


def _find(path: Path) -> Path:
    if path.parts[:1] == ("configs",) and not path.exists():
        # Inside the package when installed from a wheel, beside it in a checkout.
        return next((folder / path for folder in (_PACKAGE, _PACKAGE.parent) if (folder / path).is_file()), path)
    return path


def _read(
    path: Path, fields: Collection[str], including: tuple[Path, ...]
) -> tuple[dict[str, tuple[Any, str]], list[str]]:
    if path.resolve() in including:
        return {}, [f"{path}: {INCLUDE}: the file includes itself."]
    try:
        text = path.read_text(encoding="utf-8")
        if _nodes(yaml.compose(text, Loader), {}) > _LARGEST:
            return {}, [
                f"{path}: the file is too large once its aliases (*name) are written out; write values plainly."
            ]
        content = yaml.load(text, Loader)
    except RecursionError:
        return {}, [f"{path}: the file is nested too deeply; sections need one level."]
    except OSError as problem:
        return {}, [f"config: {str(path)!r} cannot be read ({problem.strerror}); check the path."]
    except UnicodeDecodeError:
        return {}, [f"config: {str(path)!r} is not text in UTF-8."]
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        return {}, [f"{place}: {getattr(problem, 'problem', problem)}."]
    if not isinstance(content, dict | None):
        return {}, [f"{path}: the file holds {type(content).__name__}, not fields with values."]
    values: dict[str, tuple[Any, str]] = {}
    problems: list[str] = []
    content = dict(content or {})
    included = content.pop(INCLUDE, [])
    names = included if isinstance(included, list) else [included]
    if not all(isinstance(name, str) and name for name in names):
        return {}, [f"{path}: {INCLUDE}: {included!r} is neither the name of a file nor a list of names."]
    for name in names:
        inner, found = _read(path.parent / name, fields, (*including, path.resolve()))
        values.update(inner)
        problems.extend(found)
    own: dict[str, tuple[Any, str]] = {}
    _flatten(content, path, fields, own, problems)
    return values | own, problems


def _nodes(node: yaml.Node | None, counted: dict[int, int]) -> int:
    """How many values a file holds once every alias is replaced by what it stands for."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counted:
        counted[id(node)] = _LARGEST + 1  # what holds itself is as large as can be
        pairs = isinstance(node, yaml.MappingNode)
        children = [each for pair in node.value for each in pair] if pairs else node.value
        counted[id(node)] = 1 + sum(_nodes(each, counted) for each in children)
    return counted[id(node)]


def _flatten(
    section: dict[Any, Any],
    path: Path,
    fields: Collection[str],
    values: dict[str, tuple[Any, str]],
    problems: list[str],
) -> None:
    for key, value in section.items():
        name = str(key)
        if isinstance(value, dict) and name not in fields:
            _flatten(value, path, fields, values, problems)
        elif name in values:
            problems.append(f"{path}: {name}: given twice, as {values[name][0]!r} and as {value!r}.")
        else:
            values[name] = (value, str(path))
