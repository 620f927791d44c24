"""What is searched: `learning_rate=1e-5:1e-3:log epsilon=0,0.02 num_train_epochs=1:5:int`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlearn_hf.cli.parsing import ArgumentsError

if TYPE_CHECKING:
    from optuna import Trial

_EXAMPLE = "learning_rate=1e-5:1e-3:log is a range, epsilon=0,0.02 a choice"
_FLAGS = ("log", "int")


@dataclass(frozen=True)
class Dimension:
    """One option that is searched.

    Attributes:
        name: the option.
        text: its values as they were given.
        choices: its values, empty for a range.
        low: lowest value of a range.
        high: highest value.
        flags: `log` (searched in its logarithm), `int` (whole numbers).
    """

    name: str
    text: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    flags: tuple[str, ...] = ()

    def suggest(self, trial: Trial) -> str:
        """The value of a trial, as a word of the command line."""
        if self.choices:
            return str(trial.suggest_categorical(self.name, list(self.choices)))
        log = "log" in self.flags
        if "int" in self.flags:
            return str(trial.suggest_int(self.name, int(self.low), int(self.high), log=log))
        return f"{trial.suggest_float(self.name, self.low, self.high, log=log):.6g}"

    @property
    def samples(self) -> tuple[str, ...]:
        """Values that must be valid for all to be: every choice, or both ends and one in between."""
        if self.choices or "int" in self.flags:
            return self.choices or (str(int(self.low)), str(int(self.high)))
        low, high = self.text.split(":")[:2]
        return low, high, f"{self.low + 0.382 * (self.high - self.low):.6g}"


def parse_space(words: Sequence[str]) -> list[Dimension]:
    """The dimensions that words describe; methods come first, because they decide which others there are.

    Raises:
        ArgumentsError: listing every word that describes none.
    """
    problems: list[str] = []
    found: list[Dimension] = []
    for word in words:
        try:
            found.append(_dimension(word))
        except ValueError as problem:
            problems.append(f"space: {problem}")
    names = [dimension.name for dimension in found]
    problems += [f"space: {name} is there twice." for name in dict.fromkeys(names) if names.count(name) > 1]
    if not words:
        problems.append(f"space: missing; {_EXAMPLE}.")
    if problems:
        raise ArgumentsError(problems)
    return sorted(found, key=lambda dimension: dimension.name != "method")


def _dimension(word: str) -> Dimension:
    name, equals, text = word.partition("=")
    name = name.lstrip("-").replace("-", "_")
    if not (name and equals and text):
        raise ValueError(f"{word!r} is not NAME=VALUES; {_EXAMPLE}.")
    if "," in text or ":" not in text:
        return _choice(name, text)
    low, high, *flags = text.split(":")
    unknown = [flag for flag in flags if flag not in _FLAGS]
    if unknown:
        raise ValueError(f"{word!r} ends with {unknown[0]!r}; a range is LOW:HIGH, with :log or :int after it.")
    try:
        ends = float(low), float(high)
    except ValueError:
        raise ValueError(f"{word!r}: the ends of a range are numbers; {_EXAMPLE}.") from None
    if not all(map(math.isfinite, ends)):
        raise ValueError(f"{word!r}: the ends of a range are finite numbers.")
    if ends[0] == ends[1]:
        raise ValueError(f"{name} has one value; give it as --{name} {low}.")
    if ends[0] > ends[1]:
        raise ValueError(f"{word!r}: {low} is above {high}; the lower end comes first.")
    if "int" in flags and not all(end.is_integer() for end in ends):
        raise ValueError(f"{word!r}: the ends of a range of whole numbers are whole.")
    if "log" in flags and ends[0] <= 0:
        raise ValueError(f"{word!r}: a logarithmic range begins above zero, not at {low}.")
    return Dimension(name, text, (), *ends, tuple(flags))


def _choice(name: str, text: str) -> Dimension:
    choices = tuple(text.split(","))
    if "" in choices:
        raise ValueError(f"{name}={text}: a value is empty.")
    if len(set(choices)) < len(choices):
        raise ValueError(f"{name}={text}: a value is there twice.")
    if len(choices) == 1:
        raise ValueError(f"{name} has one value; give it as --{name} {text}.")
    return Dimension(name, text, choices)
