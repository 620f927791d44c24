"""Runs side by side: metrics that may be compared in one line, settings that differ, and the frontier."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unlearn_hf.common.checks import problems_of
from unlearn_hf.evaluation.metric_value import MetricValue
from unlearn_hf.evaluation.metrics.catalog import describe
from unlearn_hf.report.runs import RUN, Run
from unlearn_hf.report.tables import is_variant

FORGETTING = ("forget_quality_log10", "forget_prob", "verbmem_forget", "forget_rouge", "lume_forget_mean")
UTILITY = ("model_utility", "knowmem_retain", "utility", "retain_prob", "lume_retain_mean")
_NOT_SETTINGS = ("output_dir", "resume", "overwrite", "run_name", "logging_dir", "logging_steps", "disable_tqdm")


@dataclass
class MetricLine:
    """One metric under one definition over the same rows.

    Attributes:
        name: flat name.
        summary: what it is.
        values: position of a run -> its value, of the runs that have one of this definition.
        others: why values of the same name stand in another line, empty when there are none.
        best: positions of the best unlearned runs.
    """

    name: str
    summary: str
    values: dict[int, MetricValue]
    others: str
    best: frozenset[int] = frozenset()

    @property
    def first(self) -> MetricValue:
        """A value of the line, all of which have its name, direction and definition."""
        return next(iter(self.values.values()))

    def goodness(self, at: int) -> float:
        """The number of a run, negated where lower is better."""
        return self.values[at].value if self.first.higher_is_better else -self.values[at].value

    @property
    def main(self) -> bool:
        """Whether it is a metric under its default definition."""
        return not is_variant(self.name)


def metric_lines(runs: Sequence[Run]) -> list[MetricLine]:
    """Metrics of all runs. Values that `check_comparable` refuses to compare never share a line."""
    names = dict.fromkeys(name for run in runs for name in run.values)
    return [line for name in names for line in _lines_of(name, runs)]


def _lines_of(name: str, runs: Sequence[Run]) -> list[MetricLine]:
    groups: list[dict[int, MetricValue]] = []
    reason = ""
    for position, value in ((position, run.values[name]) for position, run in enumerate(runs) if name in run.values):
        for group in groups:
            problems = [each for other in group.values() for each in problems_of(other.check_comparable, value)]
            if not problems:
                group[position] = value
                break
            reason = reason or problems[0]
        else:
            groups.append({position: value})
    return [MetricLine(name, _summary(name), group, reason, _best(group, runs)) for group in groups]


def _summary(name: str) -> str:
    try:
        return str(describe(name).summary)
    except ValueError:  # a metric of a package that is not installed here
        return ""


def _best(values: Mapping[int, MetricValue], runs: Sequence[Run]) -> frozenset[int]:
    found = {at: value for at, value in values.items() if runs[at].role == RUN}
    higher = next((value.higher_is_better for value in found.values()), None)
    if len(found) < 2 or higher is None:
        return frozenset()
    best = (max if higher else min)(value.value for value in found.values())
    chosen = frozenset(at for at, value in found.items() if value.value == best)
    return chosen if len(chosen) < len(found) else frozenset()


def differing_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Options whose values differ between runs, as text; `""` where a run has no such option."""
    with_settings = [run for run in runs if run.configuration and run.role == RUN]
    names = dict.fromkeys(name for run in with_settings for name in run.configuration if name not in _NOT_SETTINGS)
    found = {}
    for name in names:
        texts = [_text(run.configuration, name) for run in with_settings]
        if len(set(texts)) > 1:
            found[name] = [_text(run.configuration, name) for run in runs]
    return found


def settings_of_some(runs: Sequence[Run], names: Iterable[str]) -> set[str]:
    """Those options that differ only because some runs have no such option, as fine-tuning has no forget loss."""
    return {
        name
        for name in names
        if len({_text(run.configuration, name) for run in runs if run.role == RUN and name in run.configuration}) == 1
    }


def _text(configuration: Mapping[str, Any], name: str) -> str:
    value = configuration.get(name)
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


@dataclass
class Frontier:
    """Runs by forgetting and utility.

    Attributes:
        utility: the line on the horizontal axis.
        forgetting: the line on the vertical axis.
        points: positions of runs that have both.
        best: positions of unlearned runs that no other one beats in both.
        left_out: positions of runs that lack one of them, or have it under another definition.
    """

    utility: MetricLine
    forgetting: MetricLine
    points: list[int]
    best: list[int]
    left_out: list[int]


def frontier(
    runs: Sequence[Run], lines: Sequence[MetricLine], forgetting: str | None = None, utility: str | None = None
) -> Frontier | None:
    """The frontier in two metrics, which are chosen by what most runs have unless they are given.

    Raises:
        ValueError: if a metric that is given is in none of the runs.
    """
    across = _axis(lines, UTILITY, utility, "utility_metric")
    up = _axis(lines, FORGETTING, forgetting, "forget_metric")
    if across is None or up is None:
        return None
    points = sorted(across.values.keys() & up.values.keys())
    if not points:
        return None
    unlearned = [at for at in points if runs[at].role == RUN]
    best = [at for at in unlearned if not any(_beats(other, at, across, up) for other in unlearned)]
    best.sort(key=across.goodness)
    return Frontier(across, up, points, best, [at for at in range(len(runs)) if at not in points])


def _axis(lines: Sequence[MetricLine], names: Sequence[str], given: str | None, option: str) -> MetricLine | None:
    wanted = (given,) if given else names
    found = [line for name in wanted for line in lines if line.name == name]
    if given and not found:
        known = ", ".join(dict.fromkeys(line.name for line in lines))
        raise ValueError(f"{option}: {given!r} is in none of the runs. There are {known or 'no metrics at all'}.")
    if given and found[0].first.higher_is_better is None:
        raise ValueError(f"{option}: {given!r} has no direction: its best value is that of a retrained model.")
    # The first of the names that most runs have.
    return max(found, key=lambda line: len(line.values), default=None)


def _beats(one: int, other: int, *lines: MetricLine) -> bool:
    pairs = [(line.goodness(one), line.goodness(other)) for line in lines]
    return all(mine >= theirs for mine, theirs in pairs) and any(mine > theirs for mine, theirs in pairs)
