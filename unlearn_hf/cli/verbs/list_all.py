"""`unlearn-hf list`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from unlearn_hf.cli import registry
from unlearn_hf.cli.parsing import ArgumentsError, nearest

SUMMARY = "Name methods, objectives, metrics and benchmarks, with one line and a paper each."
EXAMPLES = ("unlearn-hf list", "unlearn-hf list methods")
ARGUMENTS: tuple[type, ...] = ()
training_config = None
KINDS = ("methods", "objectives", "metrics", "benchmarks")

Entry = tuple[str, str, str]  # name, one line, source


def methods() -> list[Entry]:
    """The unlearning methods."""
    return [
        (name, each.summary, f"{each.paper['title']}, {each.paper['url']}")
        for name, each in registry.methods().items()
    ]


def objectives() -> list[Entry]:
    """The objectives on the forget and on the retain set."""
    return [
        (each.name, f"{label}: {each.summary}", each.paper)
        for label, group in (("forget", "FORGET_OBJECTIVES"), ("retain", "RETAIN_OBJECTIVES"))
        for each in registry.objectives(group).values()
    ]


def metrics() -> list[Entry]:
    """The metrics, without the variants that have a suffix."""
    from unlearn_hf.evaluation.metrics.catalog import METRICS

    return [(name, each.summary, each.paper) for name, each in METRICS.items()]


def benchmarks() -> list[Entry]:
    """The benchmarks."""
    return [
        (
            "tofu",
            "Questions on 200 invented authors; forget 1, 5 or 10 % of them (--split forget01, forget05, forget10).",
            "Maini et al., TOFU, COLM 2024, https://arxiv.org/abs/2401.06121",
        ),
        (
            "tofu --source mini",
            "The same shape in small: 40 authors invented by this project, offline.",
            "this project",
        ),
        (
            "muse",
            "News articles or books (--split news, books): continuation, questions, membership, utility, growing and "
            "repeated requests (--forget_part scal_forget_1..4, sust_forget_1..4).",
            "Shi et al., MUSE, 2024, https://arxiv.org/abs/2407.06460",
        ),
        (
            "muse --source mini",
            "The same shape in small: local news from towns that do not exist, offline.",
            "this project",
        ),
    ]


def run(argv: Sequence[str]) -> int:
    """Print the list, or the kinds that are named."""
    wrong = [word for word in argv if word not in KINDS]
    if wrong:
        raise ArgumentsError(
            [f"{word!r} is not listed{nearest(word, KINDS)}. There are {', '.join(KINDS)}." for word in wrong]
        )
    for kind in argv or KINDS:
        print(f"{kind}:")
        for name, line, source in {"methods": methods, "objectives": objectives, "metrics": metrics,
                                   "benchmarks": benchmarks}[kind]():  # fmt: skip
            print(textwrap.indent(textwrap.fill(f"{name}: {line}", 115, subsequent_indent="  "), "  "))
            print(f"      {source}")
        print()
    return 0
