"""What `unlearn-hf VERB --help` prints."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import textwrap
from collections.abc import Collection, Sequence
from enum import Enum
from typing import Any, get_type_hints

from unlearn_hf.cli.parsing import field_names
from unlearn_hf.cli.typed_values import describe
from unlearn_hf.cli.verbs import Verb
from unlearn_hf.common.options import default_of

_COLUMN = 30


def verb_help(name: str, verb: Verb, argv: Sequence[str]) -> str:
    """Format the arguments of a verb.

    Plain `--help` needs no torch. With `--method X` it adds the method's own fields, and `--help_all` adds every
    training option of transformers; both import them.
    """
    everything = bool({"--help_all", "--help-all"} & set(argv))
    rest = [word for word in argv if word not in ("-h", "--help", "--help_all", "--help-all")]
    takes = "[--config FILE ...] [--name value ...]" if verb.arguments else "[KIND ...]"
    parts = [f"usage: unlearn-hf {' '.join(filter(None, (name, verb.words, takes)))}", verb.summary]
    if verb.examples:
        parts.append("\n".join(["examples:", *(f"  {example}" for example in verb.examples)]))
    parts += [_section(each.__doc__.partition("\n")[0], each) for each in verb.arguments if each.__doc__]
    config_class = verb.training_config(rest) if verb.training_config and (everything or rest) else None
    if config_class is not None:
        ours = [each for each in config_class.__mro__ if each.__module__.startswith("unlearn_hf")]
        own = _own_fields(ours)
        parts.append(_section(f"Training, as {config_class.__name__} adds it", config_class, own))
        if everything:
            others = [name for name in field_names([config_class]) if name not in own]
            parts.append(_section("Training, from transformers", config_class, others))
    if verb.arguments and not everything:
        parts.append(_closing(verb, config_class is not None))
    return "\n\n".join(parts)


def _closing(verb: Verb, has_fields: bool) -> str:
    text = (
        "A YAML file given to --config holds the same names, in sections as you like; later files win over earlier "
        "ones, and the command line over all of them. "
    )
    if verb.training_config:
        text += "" if has_fields else "--method NAME --help shows a method's own options too. "
        text += "--help_all prints every training option, such as --learning_rate and --num_train_epochs."
    return textwrap.fill(text, _width())


def _width() -> int:
    return max(60, min(shutil.get_terminal_size().columns, 119))


def _own_fields(classes: Sequence[type]) -> list[str]:
    """Names of the fields that `classes` themselves declare, in order of declaration."""
    names = [name for each in classes for name in inspect.get_annotations(each)]
    fields = field_names(classes)
    return [name for name in dict.fromkeys(names) if name in fields]


def _section(title: str, data_class: type, names: Collection[str] | None = None) -> str:
    hints = get_type_hints(data_class)
    lines = [f"{title}:"]
    for item in dataclasses.fields(data_class):
        if item.name not in (names if names is not None else field_names([data_class])):
            continue
        left = f"  --{item.name}"
        told = item.metadata.get("help", "")
        text = " ".join([*str(told() if callable(told) else told).split(), *_facts(item, hints[item.name])])
        wrapped = textwrap.wrap(text, _width() - _COLUMN) or [""]
        if len(left) >= _COLUMN - 1:
            lines.append(left)
            left = ""
        lines.append(f"{left:<{_COLUMN}}{wrapped[0]}")
        lines.extend(" " * _COLUMN + line for line in wrapped[1:])
    return "\n".join(lines)


def _facts(item: dataclasses.Field[Any], hint: Any) -> list[str]:
    """Type or choices, and default, in parentheses."""
    choices = item.metadata.get("choices")
    kind = "one of " + ", ".join(map(str, choices)) if choices else describe(hint)
    default = default_of(item)
    if isinstance(default, Enum):
        default = default.value
    if isinstance(default, bool):
        default = str(default).lower()
    elif isinstance(default, list):
        default = " ".join(map(str, default))
    facts = [kind] if kind != "text" else []
    facts += [f"default {default}"] if default not in (None, "") else []
    return [f"({'; '.join(facts)})"] if facts else []
