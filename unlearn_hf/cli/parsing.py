"""Command line and YAML files to dataclasses, with every problem reported at once."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, get_type_hints

from unlearn_hf.benchmarks.base import BENCHMARKS
from unlearn_hf.cli.typed_values import ConversionError, convert, convert_text, takes_several
from unlearn_hf.cli.yaml_files import read_yaml
from unlearn_hf.common.registry import nearest

COMMAND_LINE = "command line"
CONFIG = "config"
# Fields of TrainingArguments that the verbs decide themselves, with what to use instead.
REPLACED = {
    "resume_from_checkpoint": "resume",
    "do_train": "the verb",
    "do_eval": "the verb",
    "do_predict": "the verb",
    "local_rank": "accelerate launch",
}
# Old name -> today's, and the value that stands for an old switch.
RENAMED: dict[str, tuple[str, str | None]] = {
    "reference": ("retain_results", None),
    "reference_model": ("attack_model", None),
    "gradient_norm_attack": ("attacks", "gradient_norm"),
}


class ArgumentsError(ValueError):
    """One or more arguments are wrong; the message lists all of them."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Setting:
    """What was given for one field.

    Attributes:
        value: as YAML gave it, or the list of words that followed the option.
        origin: the file, or "command line".
    """

    value: Any
    origin: str

    @property
    def words(self) -> list[str]:
        """The value as words, for fields that must be read before their type is known."""
        return [str(word) for word in self.value] if isinstance(self.value, list) else [str(self.value)]


Settings = dict[str, Setting]


def word_of(settings: Settings, name: str) -> str | None:
    """A setting whose value is needed before types are known, or `None`."""
    setting = settings.get(name)
    return " ".join(setting.words) or None if setting is not None and setting.value is not None else None


def add_benchmark_defaults(settings: Settings) -> None:
    """Add what the benchmark prefers for options that are not given."""
    benchmark = word_of(settings, "benchmark")
    if benchmark is not None and benchmark in BENCHMARKS:
        add_unless_given(settings, BENCHMARKS[benchmark].defaults, f"benchmark {benchmark}")


def add_unless_given(settings: Settings, values: Mapping[str, Any], origin: str) -> None:
    """Add the values that are not `None`, for options that are not given."""
    for name, value in values.items():
        if value is not None:
            settings.setdefault(name, Setting(value, origin))


def split_named(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before the first option, and the others."""
    named = list(takewhile(lambda word: not word.startswith("--"), argv))
    return named, list(argv[len(named) :])


def as_words(options: Mapping[str, str]) -> list[str]:
    """Options with one word each as words of the command line."""
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def split_command_line(argv: Sequence[str]) -> Settings:
    """Split `--name value ...` and `--name=value` into settings. A later option replaces an earlier one.

    Hyphens in names stand for underscores. `--config` collects its files over all its occurrences.

    Raises:
        ArgumentsError: for words that belong to no option.
    """
    settings: dict[str, list[str]] = {}
    problems = []
    current: list[str] | None = None
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            current = settings.get(name, []) if name == CONFIG else []
            settings[name] = current
            if equals:
                current.append(value)
                current = None
        elif current is not None:
            current.append(word)
        else:
            problems.append(f"{COMMAND_LINE}: {word!r} belongs to no option; options look like --name value.")
    if problems:
        raise ArgumentsError(problems)
    return {name: Setting(words, COMMAND_LINE) for name, words in settings.items()}


def collect_settings(argv: Sequence[str], fields: Collection[str]) -> tuple[Settings, list[str]]:
    """Merge the files of `--config`, left to right, and the command line, which wins.

    Args:
        argv: the words after the verb.
        fields: names of all fields that any verb has.

    Returns:
        The settings, and the problems found in the files.

    Raises:
        ArgumentsError: for a malformed command line.
    """
    given = split_command_line(argv)
    merged: Settings = {}
    problems: list[str] = []
    files = given.pop(CONFIG, None)
    if files is not None and not files.value:
        problems.append(f"{COMMAND_LINE}: {CONFIG}: no file is named.")
    for file in files.value if files else []:
        values, found = read_yaml(file, fields)
        problems.extend(found)
        merged.update({name: Setting(value, origin) for name, (value, origin) in values.items()})
    return _renamed(merged | given, fields), problems


def _renamed(settings: Settings, fields: Collection[str]) -> Settings:
    """Settings under today's names, with a warning for each old one."""
    # Some verbs have a field of such a name; who knows the fields of all verbs knows the old names, too.
    own = set() if set(RENAMED) <= set(fields) else set(fields)
    found = {name: setting for name, setting in settings.items() if name not in RENAMED or name in own}
    for old, (name, value) in RENAMED.items():
        if old not in settings or old in own:
            continue
        warnings.warn(
            f"--{old} is now --{name}{f' {value}' if value else ''}; the old name goes with the next version.",
            FutureWarning,
            stacklevel=2,
        )
        setting = settings[old]
        if value is None:
            found.setdefault(name, setting)
        elif not {str(word).lower() for word in setting.words} & {"false", "no", "off", "0"}:
            found[name] = Setting([*(found[name].words if name in found else []), value], setting.origin)
    return found


def read_arguments(classes: Sequence[type], argv: Sequence[str]) -> list[Any]:
    """An instance of each of `classes`, of a verb that takes nothing else, from files and command line.

    Raises:
        ArgumentsError: listing everything that is wrong.
    """
    return build(classes, *collect_settings(argv, field_names(classes)))


def field_names(classes: Iterable[type]) -> list[str]:
    """Names of all fields of `classes` that can be set."""
    return [
        item.name for each in classes for item in dataclasses.fields(each) if item.init and item.name not in REPLACED
    ]


def build(
    classes: Sequence[type],
    settings: Settings,
    problems: Sequence[str] = (),
    elsewhere: dict[str, str] | None = None,
    ignored: Collection[str] = (),
) -> list[Any]:
    """Make one instance of each of `classes` from `settings`.

    Args:
        classes: dataclasses whose field names differ.
        settings: what was given.
        problems: those already found, to be reported with the new ones.
        elsewhere: names that exist for other methods or verbs, with a sentence that says so.
        ignored: names that may stand in files and are of no use here.

    Raises:
        ArgumentsError: listing all unknown names, wrong types and rejected values.
    """
    problems = list(problems)
    known = field_names(classes)
    for name, setting in settings.items():
        if name in known or (name in ignored and setting.origin != COMMAND_LINE):
            continue
        if name in REPLACED:
            hint = f"; use {REPLACED[name]} instead"
        else:
            hint = f"; {elsewhere[name]}" if elsewhere and name in elsewhere else nearest(name, known)
        problems.append(f"{setting.origin}: {name}: unknown{hint or '; --help_all lists what there is'}")
    instances = [_instance(each, settings, problems) for each in classes]
    if problems:
        raise ArgumentsError(problems)
    return instances


def _instance(data_class: type, settings: Settings, problems: list[str]) -> Any:
    """Make an instance, or add to `problems` and return `None`."""
    hints = get_type_hints(data_class)
    values: dict[str, Any] = {}
    before = len(problems)
    for item in dataclasses.fields(data_class):
        setting = settings.get(item.name)
        if setting is None or not item.init or item.name in REPLACED:
            continue
        choices = item.metadata.get("choices")
        is_text = setting.origin == COMMAND_LINE
        shown = " ".join(setting.words) if is_text else setting.value
        if is_text and len(setting.words) > 1 and not takes_several(hints[item.name]):
            problems.append(
                f"{setting.origin}: {setting.words[1]!r} belongs to no option; {item.name} takes one value (quote it "
                "if it has spaces)."
            )
            continue
        try:
            value = (convert_text if is_text else convert)(setting.value, hints[item.name])
        except ConversionError as problem:
            problems.append(f"{setting.origin}: {item.name}: {shown!r} is not {problem}")
            continue
        words = value if isinstance(value, list) else [value]
        if choices and any(word is not None and word not in choices for word in words):
            wrong = next(str(word) for word in words if word not in choices)
            near = nearest(wrong, list(choices)) or f"; choose one of {', '.join(map(str, choices))}"
            problems.append(f"{setting.origin}: {item.name}: {shown!r} is not known{near}")
        values[item.name] = value
    if len(problems) > before:
        return None
    try:
        return data_class(**values)
    except (ValueError, ImportError) as problem:
        message = str(problem)
        setting = settings.get(message.partition(":")[0])
        problems.append(f"{setting.origin}: {message}" if setting else message)
        return None
