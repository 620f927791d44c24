"""`unlearn-hf list`."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from unlearn_hf.audit.base import AUDIT_ATTACKS
from unlearn_hf.benchmarks.base import BENCHMARKS
from unlearn_hf.cli import option_names
from unlearn_hf.cli.parsing import ArgumentsError, nearest
from unlearn_hf.cli.verbs import Verb
from unlearn_hf.evaluation.attacks.base import ATTACKS
from unlearn_hf.objectives import FORGET_OBJECTIVES, RETAIN_OBJECTIVES

Entry = tuple[str, str, str]  # name, one line, source


def methods() -> list[Entry]:
    """The unlearning methods."""
    return [
        (name, each.summary, f"{each.paper['title']}, {each.paper['url']}")
        for name, each in option_names.methods().items()
    ]


def objectives() -> list[Entry]:
    """The objectives on the forget and on the retain set."""
    return [
        (each.name, f"{label}: {each.summary}", each.paper)
        for label, group in (("forget", FORGET_OBJECTIVES), ("retain", RETAIN_OBJECTIVES))
        for each in group.values()
    ]


def metrics() -> list[Entry]:
    """The metrics, without the variants that have a suffix."""
    from unlearn_hf.evaluation.metrics.catalog import metrics

    return [(name, each.summary, each.paper) for name, each in metrics().items()]


def attacks() -> list[Entry]:
    """The membership attacks."""
    return [(name, f"by {each.summary}; costs {each.cost}", each.paper) for name, each in ATTACKS.items()]


def audit_attacks() -> list[Entry]:
    """The attacks of the audit."""
    return [(name, each.summary, each.paper) for name, each in AUDIT_ATTACKS.items()]


def benchmarks() -> list[Entry]:
    """The benchmarks, and the small data that come along with some."""
    found = []
    for name, each in BENCHMARKS.items():
        found.append((name, each.summary, each.paper))
        if each.bundled is not None:
            found.append((f"{name} --source mini", each.bundled, "this project"))
    return found


KINDS: dict[str, Callable[[], list[Entry]]] = {
    each.__name__: each for each in (methods, objectives, metrics, attacks, audit_attacks, benchmarks)
}


def run(argv: Sequence[str]) -> int:
    """Print the list, or the kinds that are named."""
    wrong = [word for word in argv if word not in KINDS]
    if wrong:
        raise ArgumentsError(
            [f"{word!r} is not listed{nearest(word, KINDS)}. There are {', '.join(KINDS)}." for word in wrong]
        )
    for kind in argv or KINDS:
        print(f"{kind}:")
        for name, line, source in KINDS[kind]():
            print(textwrap.indent(textwrap.fill(f"{name}: {line}", 115, subsequent_indent="  "), "  "))
            print(f"      {source}")
        print()
    return 0


VERB = Verb(
    run,
    "Name methods, objectives, metrics, attacks and benchmarks, with one line and a paper each.",
    examples=("unlearn-hf list", "unlearn-hf list methods"),
)
