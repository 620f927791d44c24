"""One value of a YAML file or of the command line to the type that a dataclass field asks for."""

from __future__ import annotations

import json
import types
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_UNFIT = object()


class ConversionError(Exception):
    """The value does not fit; the message is what was expected."""


def convert(value: Any, hint: Any) -> Any:
    """Convert `value`, as YAML or JSON gave it, to the type `hint`.

    Text is accepted where its meaning is plain (`"1e-5"` for a number, `"yes"` for a truth value). A whole float is
    accepted as an integer. Where a union has several members, the most specific one that fits is taken.

    Raises:
        ConversionError: saying what was expected.
    """
    converted = _fit(value, hint)
    if converted is _UNFIT:
        raise ConversionError(describe(hint))
    return converted


def convert_text(values: list[str], hint: Any) -> Any:
    """Convert the words that followed an option on the command line to the type `hint`.

    Several words make a list; JSON stands for a list or mapping; no word stands for true.

    Raises:
        ConversionError: saying what was expected.
    """
    members = _members(hint)
    lists = [member for member in members if get_origin(member) is list]
    if not values:
        return convert(True, hint)
    if len(values) > 1:
        return convert(values, hint)
    word = values[0]
    # Where a field takes a name or several, `none` is one of them: `--report_to none`.
    if word.lower() in ("none", "null") and types.NoneType in members and not (lists and str in members):
        return None
    structured = any(get_origin(member) in (list, dict) or member is dict for member in members)
    if structured and word[:1] in "{[":
        try:
            return convert(json.loads(word), hint)
        except json.JSONDecodeError as problem:
            raise ConversionError(f"JSON ({problem})") from problem
    if lists and str not in members:
        return convert([word], hint)
    return convert(word, hint)


def takes_several(hint: Any) -> bool:
    """Whether a field of type `hint` takes several words of the command line."""
    return any(get_origin(member) is list for member in _members(hint))


def describe(hint: Any) -> str:
    """What a field of type `hint` takes, in words."""
    names = [_describe_member(member) for member in _members(hint) if member is not types.NoneType]
    return " or ".join(dict.fromkeys(names))


def _members(hint: Any) -> list[Any]:
    """The alternatives of a type, most specific first."""
    alternatives = list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]
    if any(_is_enum(member) for member in alternatives):
        # transformers writes `SchedulerType | str`, and means the names of the enumeration.
        alternatives = [member for member in alternatives if member is not str]
    order = (types.NoneType, bool, int, float, dict, str)
    return sorted(alternatives, key=lambda member: order.index(member) if member in order else 1)


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _fit(value: Any, hint: Any) -> Any:
    """The value as the first alternative of `hint` that it fits, or `_UNFIT`."""
    candidates = (_fit_member(value, member) for member in _members(hint))
    return next((candidate for candidate in candidates if candidate is not _UNFIT), _UNFIT)


def _fit_member(value: Any, hint: Any) -> Any:
    origin = get_origin(hint)
    if hint is Any or (hint is types.NoneType and value is None) or (hint is str and isinstance(value, str)):
        return value
    if _is_enum(hint):
        return next((member for member in hint if value in (member, member.value)), _UNFIT)
    if origin is Literal:
        same = (choice for choice in get_args(hint) if value == choice and type(value) is type(choice))
        return next(same, _UNFIT)
    if origin is list and isinstance(value, list):
        items = [_fit(item, get_args(hint)[0]) for item in value]
        return items if all(item is not _UNFIT for item in items) else _UNFIT
    if dict in (hint, origin) and isinstance(value, dict):
        return value
    if hint is bool and isinstance(value, (bool, str)):
        word = str(value).lower()
        return word in _TRUE if word in _TRUE + _FALSE else _UNFIT
    if hint in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return _number(value, hint)
    return _UNFIT


def _number(value: float | str, hint: type) -> Any:
    try:
        if hint is float:
            return float(value)
        # By way of a float only where needed: large seeds would lose digits.
        if isinstance(value, float) or "e" in str(value).lower():
            return int(float(value)) if float(value).is_integer() else _UNFIT
        return int(value)
    except ValueError:
        return _UNFIT


def _describe_member(hint: Any) -> str:
    if _is_enum(hint):
        return "one of " + ", ".join(str(member.value) for member in hint)
    origin = get_origin(hint)
    if origin is Literal:
        return " or ".join(str(choice).lower() for choice in get_args(hint))
    if origin is list:
        return f"a list ({describe(get_args(hint)[0])} each)"
    if hint is dict or origin is dict:
        return "a mapping (JSON on the command line)"
    words = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))
