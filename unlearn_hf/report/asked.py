"""Answers to a question side by side, for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest

from unlearn_hf.evaluation.asking import Answers

_NARROWEST, _LABEL, _BETWEEN = 24, 12, " | "


@dataclass(frozen=True)
class Asked:
    """A question, the answer whose probability was wanted, and what each model said, by side."""

    question: str
    answer: str | None
    answers: Mapping[str, Answers]


def print_asked(asked: Asked) -> None:
    """Print a column for each side; under each other where the terminal is too narrow."""
    columns = shutil.get_terminal_size().columns
    sides = list(asked.answers)
    width = (columns - _LABEL - len(_BETWEEN) * (len(sides) - 1)) // len(sides)
    for line in textwrap.wrap(asked.question, columns):
        print(line)
    if width >= _NARROWEST:
        _print_table(asked.answers, width)
        return
    for side, answers in asked.answers.items():
        _print_table({side: answers}, max(columns - _LABEL, 1))


def _print_table(answers: Mapping[str, Answers], width: int) -> None:
    rows = [("", list(answers)), ("greedy", [each.greedy for each in answers.values()])]
    count = max(len(each.sampled) for each in answers.values())
    rows += [(f"sampled {index + 1}", [each.sampled[index] for each in answers.values()]) for index in range(count)]
    if all(each.probability is not None for each in answers.values()):
        rows.append(("probability", [f"{each.probability:.3g} a token" for each in answers.values()]))
        rows.append(("", [f"{each.whole_probability:.2g} in all" for each in answers.values()]))
    for label, texts in rows:
        cells = [_lines(text, width) for text in texts]
        for number, parts in enumerate(zip_longest(*cells, fillvalue="")):
            line = _BETWEEN.join(f"{part:<{width}}" for part in parts).rstrip()
            print(f"{label if number == 0 else '':<{_LABEL}}{line}".rstrip())


def _lines(text: str, width: int) -> list[str]:
    """The text in lines; what a terminal would obey is shown, not sent to it."""
    shown = "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)
    return (
        [line for part in shown.split("\n") for line in textwrap.wrap(part, width) or [""]] if shown else ["(nothing)"]
    )
