"""Values, YAML files and command lines to dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest

from unlearn_hf.cli.parsing import ArgumentsError, build, collect_settings, field_names
from unlearn_hf.cli.typed_values import ConversionError, convert, convert_text


class Schedule(str, Enum):  # noqa: UP042 (like those of transformers)
    LINEAR = "linear"
    COSINE = "cosine"


@dataclass
class Example:
    """Example"""

    rate: float = 0.1
    steps: int = 1
    quick: bool = False
    name: str | None = None
    layers: list[str] = field(default_factory=list)
    options: dict[str, Any] | str | None = None
    schedule: Schedule | str = Schedule.LINEAR
    side: str = field(default="left", metadata={"choices": ["left", "right"]})
    resume_from_checkpoint: str | None = None

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"rate: {self.rate} is negative; give zero or more.")


@dataclass
class Other:
    """Other"""

    depth: int = 2

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise ValueError(f"depth: {self.depth} is negative; give zero or more.")


CLASSES = (Example, Other)


def parse(*words: str, **options: Any) -> Any:
    settings, problems = collect_settings(words, field_names(CLASSES))
    return build(CLASSES, settings, problems, **options)


def write(folder: Path, text: str, name: str = "a.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


CONVERSIONS: list[tuple[Any, Any, Any]] = [
    (1e-5, float, 1e-5),
    ("1e-5", float, 1e-5),
    (3, float, 3.0),
    (3.0, int, 3),
    ("1e3", int, 1000),
    (str(2**62 + 1), int, 2**62 + 1),
    ("yes", bool, True),
    ("off", bool, False),
    (None, int | None, None),
    ("none", str | None, "none"),
    ([1, "2"], list[int], [1, 2]),
    ({"a": 1}, dict[str, Any] | str | None, {"a": 1}),
    ("cosine", Schedule | str, Schedule.COSINE),
    ("no", str | bool, False),
    (False, str | Literal[False] | None, False),
    ("a", None | str | list[str], "a"),
    (["a"], None | str | list[str], ["a"]),
]


@pytest.mark.parametrize(("value", "hint", "expected"), CONVERSIONS)
def test_convert(value: Any, hint: Any, expected: Any) -> None:
    converted = convert(value, hint)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, bool, "true or false"),
        (True, int, "a whole number"),
        (1.5, int, "a whole number"),
        ("nan", int, "a whole number"),
        ("x", float | None, "a number"),
        (None, int, "a whole number"),
        (5, str, "text"),
        ("a", list[int], "a list"),
        (["a"], list[int], "a list"),
        ("cosin", Schedule | str, "one of linear, cosine"),
    ],
)
def test_convert_refuses(value: Any, hint: Any, expected: str) -> None:
    with pytest.raises(ConversionError, match=expected):
        convert(value, hint)


@pytest.mark.parametrize(
    ("words", "hint", "expected"),
    [
        ([], bool, True),
        (["false"], bool, False),
        (["a", "b"], list[str] | None, ["a", "b"]),
        (["a"], list[str] | None, ["a"]),
        (['["a", "b"]'], list[str] | None, ["a", "b"]),
        (['{"a": 1}'], dict | str | None, {"a": 1}),
        (["file.json"], dict | str | None, "file.json"),
        (["none"], float | None, None),
        (["none"], None | str | list[str], "none"),
        (["-1"], int, -1),
    ],
)
def test_convert_text(words: list[str], hint: Any, expected: Any) -> None:
    assert convert_text(words, hint) == expected


@pytest.mark.parametrize(("words", "hint"), [(["1", "2"], int), ([], int), (["{a}"], dict | None)])
def test_convert_text_refuses(words: list[str], hint: Any) -> None:
    with pytest.raises(ConversionError):
        convert_text(words, hint)


def test_yaml_sections_are_flattened_and_numbers_are_numbers(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        any name:
          rate: 1e-5
          deeper: {steps: 7}
        options: {a: {b: 1}}
        side: right
        name: no
        layers: [q, v]
        depth: 3
        """,
    )
    example, other = parse("--config", file)
    assert (example.rate, example.steps, example.options) == (1e-5, 7, {"a": {"b": 1}})
    assert (example.name, example.layers, other.depth) == ("no", ["q", "v"], 3)


def test_later_files_win_and_the_command_line_over_all(tmp_path: Path) -> None:
    first = write(tmp_path, "rate: 1\nsteps: 1\ndepth: 1", "first.yaml")
    second = write(tmp_path, "steps: 2\ndepth: 2", "second.yaml")
    example, other = parse("--depth", "9", "--config", first, second, "--depth=3", "--quick")
    assert (example.rate, example.steps, other.depth, example.quick) == (1.0, 2, 3, True)


def test_included_values_are_overridden(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, "rate: 1\nsteps: 1", "base.yaml")
    file = write(tmp_path / "deep", "include: ../base.yaml\nsection: {steps: 2}")
    example, _ = parse("--config", file)
    assert (example.rate, example.steps) == (1.0, 2)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("rat: 1", ["rat: unknown; did you mean rate?"]),
        ("rate: fast", ["rate: 'fast' is not a number"]),
        ("side: rigth", ["side: 'rigth' is not known; did you mean right?"]),
        ("side: up", ["side: 'up' is not known; choose one of left, right"]),
        ("rate: 1\nrate: 2", ["line 2: rate is given twice"]),
        ("a: {rate: 1}\nb: {rate: 2}", ["rate: given twice"]),
        ("rate: -1", ["rate: -1.0 is negative"]),
        ("rate: {a: 1}", ["rate: {'a': 1} is not a number"]),
        ("- rate", ["holds list"]),
        ("rate: [1", ["line 1"]),
        ("include: missing.yaml", ["missing.yaml' cannot be read"]),
        ("include: a.yaml", ["includes itself"]),
        ("include: 5", ["include: 5 is neither the name of a file nor a list"]),
        ("include: [5]", ["include: [5] is neither"]),
        ("include: {a: b}", ["include: {'a': 'b'} is neither"]),
        ("include:", ["include: None is neither"]),
        ("rate: 1\n? [a, b]\n: 2", ["line 2: a key is no plain word"]),
        ("? {a: b}\n: 2", ["line 1: a key is no plain word"]),
        ("resume_from_checkpoint: x", ["use resume instead"]),
        ("rat: 1\nsteps: x\ndepth: -2", ["rat: unknown", "steps: 'x' is not a whole number", "depth: -2 is negative"]),
    ],
)
def test_mistakes_in_a_file_are_named_all_at_once(tmp_path: Path, text: str, messages: list[str]) -> None:
    with pytest.raises(ArgumentsError) as caught:
        parse("--config", write(tmp_path, text))
    assert len(caught.value.problems) == len(messages)
    for message, problem in zip(messages, caught.value.problems, strict=True):
        assert message in problem
        assert ".yaml" in problem


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rat", "1"], "command line: rat: unknown; did you mean rate?"),
        (["--rate", "1", "2"], "command line: '2' belongs to no option; rate takes one value"),
        (["--rate"], "command line: rate: '' is not a number"),
        (["rate"], "'rate' belongs to no option"),
        (["--quick=true", "x"], "'x' belongs to no option"),
        (["--config"], "no file is named"),
        (["--config", "absent.yaml"], "absent.yaml' cannot be read"),
        (["--options", "{a"], "options: '{a' is not JSON"),
        (["--zzzzz", "1"], "zzzzz: unknown; --help_all lists what there is"),
    ],
)
def test_mistakes_on_the_command_line(words: list[str], message: str) -> None:
    with pytest.raises(ArgumentsError) as caught:
        parse(*words)
    assert any(message in problem for problem in caught.value.problems), caught.value.problems


def test_names_that_belong_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ArgumentsError, match="epsilon: unknown; only eupmu has it"):
        parse("--epsilon", "1", elsewhere={"epsilon": "only eupmu has it"})
    file = write(tmp_path, "epsilon: 1\nrate: 2")
    assert parse("--config", file, ignored=["epsilon"])[0].rate == 2
    with pytest.raises(ArgumentsError, match="epsilon: unknown"):
        parse("--epsilon", "1", ignored=["epsilon"])


def test_hyphens_stand_for_underscores() -> None:
    with pytest.raises(ArgumentsError, match="resume_from_checkpoint: unknown; use resume"):
        parse("--resume-from-checkpoint", "x")
