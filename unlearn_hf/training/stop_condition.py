"""The condition of `stop_when`: comparisons of measured numbers, joined by `and` and `or`; parsed, never evaluated.

It is written in Python's syntax, of which this much is taken:

    condition   = comparison | condition ("and" | "or") condition | "(" condition ")"
    comparison  = product ("<" | "<=" | ">" | ">=") product
    product     = factor { "*" factor }
    factor      = number | name | "initial"

`initial` is the value before unlearning of the measured name in the same comparison.
"""

from __future__ import annotations

import ast
import math
import operator
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
_COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.LtE: operator.le,
    ast.GtE: operator.ge,
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
}

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
    line = " ".join(text.split())
    try:
        if "#" in line:  # what follows would be a comment, and a part of the condition lost
            raise ValueError("'#' has no meaning in it")
        return StopCondition(text, _check(ast.parse(line, mode="eval").body))
    except SyntaxError as error:
        rest = line[error.offset - 1 :] if error.offset else ""
        problem = f"{error.msg.partition('.')[0]} at {rest!r}" if rest else f"it ends too early ({error.msg})"
    except ValueError as error:
        problem = str(error)
    raise ValueError(
        f"stop_when: {text!r}: {problem}; give comparisons such as 'forget_prob < 0.1 and "
        f"retain_prob > 0.95 * initial'. Names are {', '.join(NAMES)}."
    )


def _check(node: ast.expr) -> _Check:
    """The check that an expression stands for."""
    if isinstance(node, ast.BoolOp):
        parts = [_check(each) for each in node.values]
        join = any if isinstance(node.op, ast.Or) else all
        return lambda now, initial: join(each(now, initial) for each in parts)
    if not isinstance(node, ast.Compare) or len(node.ops) > 1 or type(node.ops[0]) not in _COMPARISONS:
        raise ValueError(f"{ast.unparse(node)!r} is no comparison by <, <=, > or >=")
    compare = _COMPARISONS[type(node.ops[0])]
    sides = [_factors(each) for each in (node.left, *node.comparators)]
    words = [each for side in sides for each in side if isinstance(each, str)]
    measured = {word for word in words if word in MEASURED}
    if not NAMES.keys() & set(words):
        raise ValueError("a comparison names nothing that is measured")
    if _INITIAL in words and len(measured) != 1:
        raise ValueError("'initial' needs forget_prob or retain_prob in the same comparison, and one of them only")

    def holds(now: Values, initial: Values) -> bool:
        values = {**now, _INITIAL: initial[next(iter(measured))]} if _INITIAL in words else now
        left, right = (math.prod(values[each] if isinstance(each, str) else each for each in side) for side in sides)
        return compare(left, right)

    return holds


def _factors(node: ast.expr) -> list[float | str]:
    """The numbers and names that are multiplied."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _factors(node.left) + _factors(node.right)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return [node.value]
    if not isinstance(node, ast.Name):
        raise ValueError(f"{ast.unparse(node)!r} is no number, name or product of them")
    if node.id not in (*NAMES, _INITIAL):
        raise ValueError(f"{node.id!r} is not known{nearest(node.id, [*NAMES, _INITIAL])}".rstrip("?"))
    return [node.id]
