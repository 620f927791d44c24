"""The condition of `stop_when`: comparisons of measured numbers, joined by `and` and `or`; parsed, never evaluated.

    condition   = conjunction { "or" conjunction }
    conjunction = clause { "and" clause }
    clause      = "(" condition ")" | product ("<" | "<=" | ">" | ">=") product
    product     = factor { "*" factor }
    factor      = number | name | "initial"

`initial` is the value before unlearning of the measured name in the same comparison.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from unlearn_hf.common.registry import nearest

NAMES = {
    "forget_prob": "mean probability per token of the answers to forget",
    "retain_prob": "the same of the answers to keep (of rows that are held back, where some are)",
    "step": "optimizer steps so far",
    "epoch": "epochs so far",
}
MEASURED = ("forget_prob", "retain_prob")
_INITIAL = "initial"
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)|([A-Za-z_]\w*)|(<=|>=|[<>()*]))")

Values = Mapping[str, float]
_Check = Callable[[Values, Values], bool]


@dataclass(frozen=True)
class StopCondition:
    """A parsed condition.

    Attributes:
        text: as it was given.
        holds: whether it holds for the values of now and those before unlearning.
    """

    text: str
    holds: _Check


def parse_condition(text: str) -> StopCondition:
    """Parse a condition.

    Args:
        text: such as `forget_prob < 0.1 and retain_prob > 0.95 * initial`.

    Raises:
        ValueError: naming `stop_when`, and what is wrong where.
    """
    return StopCondition(text, _Parser(text).whole())


class _Parser:
    """Recursive descent over the tokens of one condition."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        self.next = 0
        place = 0
        while text[place:].strip():
            found = _TOKEN.match(text, place)
            if found is None:
                raise self._error(f"{text[place:].strip()[0]!r} has no meaning in it")
            self.tokens.append(found.group().strip())
            place = found.end()

    def _error(self, problem: str) -> ValueError:
        return ValueError(
            f"stop_when: {self.text!r}: {problem}; give comparisons such as 'forget_prob < 0.1 and "
            f"retain_prob > 0.95 * initial'. Names are {', '.join(NAMES)}."
        )

    def _peek(self) -> str | None:
        return self.tokens[self.next] if self.next < len(self.tokens) else None

    def _take(self, wanted: str) -> bool:
        found = self._peek() == wanted
        self.next += found
        return found

    def whole(self) -> _Check:
        check = self._joined("or", self._conjunction, any)
        if self._peek() is not None:
            raise self._error(f"{self._peek()!r} is not expected there")
        return check

    def _conjunction(self) -> _Check:
        return self._joined("and", self._clause, all)

    def _joined(self, word: str, part: Callable[[], _Check], join: Callable[[list[bool]], bool]) -> _Check:
        parts = [part()]
        while self._take(word):
            parts.append(part())
        return lambda now, initial: join([each(now, initial) for each in parts])

    def _clause(self) -> _Check:
        if self._take("("):
            inside = self._joined("or", self._conjunction, any)
            if not self._take(")"):
                raise self._error("a parenthesis is not closed")
            return inside
        left, found = self._product()
        compare = _COMPARISONS.get(self._peek() or "")
        if compare is None:
            raise self._error(f"{self._peek() or 'the end'!r} stands where <, <=, > or >= is expected")
        self.next += 1
        right, others = self._product()
        words = found + others
        measured = {word for word in words if word in MEASURED}
        if not any(word in NAMES for word in words):
            raise self._error("a comparison names nothing that is measured")
        if _INITIAL in words and len(measured) != 1:
            raise self._error(
                "'initial' needs forget_prob or retain_prob in the same comparison, and one of them only"
            )
        subject = next(iter(measured), "")
        return lambda now, initial: compare(
            left(now, initial.get(subject, 1.0)), right(now, initial.get(subject, 1.0))
        )

    def _product(self) -> tuple[Callable[[Values, float], float], list[str]]:
        factors = [self._factor()]
        while self._take("*"):
            factors.append(self._factor())

        def value(now: Values, initial: float) -> float:
            return math.prod(
                initial if each == _INITIAL else now[each] if isinstance(each, str) else each for each in factors
            )

        return value, [each for each in factors if isinstance(each, str)]

    def _factor(self) -> float | str:
        token = self._peek()
        if token is None:
            raise self._error("it ends where a number or a name is expected")
        self.next += 1
        if token[0].isdigit() or token[0] == ".":
            return float(token)
        if token in NAMES or token == _INITIAL:
            return token
        if token.isidentifier() and token not in ("and", "or"):
            raise self._error(f"{token!r} is not known{nearest(token, [*NAMES, _INITIAL])}".rstrip("?"))
        raise self._error(f"{token!r} stands where a number or a name is expected")
