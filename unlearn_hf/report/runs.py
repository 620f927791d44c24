"""Runs as a report sees them: our run folders, and evaluation logs of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlearn_hf.audit import AUDIT_FILE
from unlearn_hf.benchmarks.from_logs import EvaluationLog, read_log, recompute_values
from unlearn_hf.common.files import read_json
from unlearn_hf.common.ledger import LedgerEntry, read_ledger
from unlearn_hf.common.run_record import RECORD, read_record
from unlearn_hf.evaluation import RESULT_FILE
from unlearn_hf.evaluation.metric_value import MetricValue
from unlearn_hf.evaluation.results import read_result
from unlearn_hf.report.audit import audit_rows, audit_words

TRAINER_STATE = "trainer_state.json"
VERDICT = "verdict.json"
_VERDICT_KINDS = {
    **dict.fromkeys(("before", "after"), dict),
    **dict.fromkeys(("leaking_rows", "advice", "sentences", "not_checked"), list),
    **dict.fromkeys(("forgotten", "kept"), str),
}
RUN, TARGET, RETAIN_ONLY = "run", "target", "retain-only"


@dataclass
class Run:
    """One column of a report.

    Attributes:
        path: folder or file.
        name: short and unlike the others'.
        role: `run`, `target` (the model before unlearning) or `retain-only` (which never saw the forget set).
        record: content of `run.json`, empty for a log.
        values: metrics by name.
        log: the evaluation with its values per sample, `None` where there is none.
        history: what the trainer logged, one dictionary a line.
        verdict: content of `verdict.json`, empty without one.
        ledger: requests that the model has behind it, oldest first; empty without a ledger.
        audit: `rows` and `sentences` of `audit.json`, empty without one.
        notes: what is missing or damaged, a sentence each.
    """

    path: Path
    name: str
    role: str = RUN
    record: dict[str, Any] = field(default_factory=dict)
    values: dict[str, MetricValue] = field(default_factory=dict)
    log: EvaluationLog | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    verdict: dict[str, Any] = field(default_factory=dict)
    ledger: list[LedgerEntry] = field(default_factory=list)
    audit: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def configuration(self) -> dict[str, Any]:
        """Every option with its value, empty for a log."""
        found = self.record.get("configuration")
        return found if isinstance(found, dict) else {}

    @property
    def samples(self) -> Any:
        """The per-sample table, `None` where there is none."""
        return None if self.log is None else self.log.samples


def read_run(path: Path, role: str = RUN, retain_only: Path | None = None) -> Run:
    """Read a run folder or a log; what is damaged is noted, what is whole is kept.

    Args:
        path: a run folder, a folder with a log, or a log.
        role: see `Run`.
        retain_only: results of the retain-only model, for forget quality where a run has none.

    Raises:
        ValueError: if there is nothing of a run at all.
    """
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder.")
    run = Run(path, path.resolve().name, role)
    problems: list[str] = []
    if path.is_dir():
        for name, read in (("record", read_record), ("ledger", read_ledger)):
            try:
                setattr(run, name, read(path))
            except ValueError as problem:
                problems.append(str(problem))
        run.history = _history(path / TRAINER_STATE, problems)
        run.verdict = _verdict(path / VERDICT, problems)
        run.audit = _audit(path / AUDIT_FILE, problems)
    source = _evaluation(path)
    try:
        if source is not None:
            run.log = read_log(source)
            run.values = _values(source, run.log, None)
    except (ValueError, OSError) as problem:
        problems.append(str(problem))
    if not (run.record or run.values):
        raise ValueError(problems[0] if problems else f"{path}: it is no run folder (no {RECORD}) and no result file.")
    run.notes = problems
    if not run.values and not problems:
        run.notes.append(f"{path}: it has no evaluation; unlearn-hf evaluate --model_name_or_path {path} makes one.")
    if retain_only is not None and source is not None and run.values and "forget_quality" not in run.values:
        _add_forget_quality(run, source, retain_only)
    return run


def _evaluation(path: Path) -> Path | None:
    """Where the results are: at the top, else the newest that `evaluate` wrote into the folder."""
    if not path.is_dir() or (path / RESULT_FILE).exists():
        return path
    inside = sorted(path.glob(f"evaluations/*/{RESULT_FILE}"), key=lambda file: file.stat().st_mtime)
    if inside:
        return inside[-1]
    return None if (path / RECORD).exists() else path


def _values(source: Path, log: EvaluationLog, retain_only: Path | None) -> dict[str, MetricValue]:
    if log.kind == "unlearn_hf" and log.path.suffix == ".json" and retain_only is None:
        return read_result(log.path)[1]
    return recompute_values(source, retain_only)


def _add_forget_quality(run: Run, source: Path, retain_only: Path) -> None:
    assert run.log is not None
    try:
        found = _values(source, run.log, retain_only)
    except ValueError as problem:
        run.notes.append(f"{run.path}: not compared with {retain_only}: {problem}")
        return
    run.values = {**found, **run.values}


def _history(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    history = _mapping(path, problems).get("log_history", [])
    return [line for line in history if isinstance(line, dict)] if isinstance(history, list) else []


def _verdict(path: Path, problems: list[str]) -> dict[str, Any]:
    """The verdict, without fields that are not what they should be."""
    content = _mapping(path, problems)
    wrong = [name for name, kind in _VERDICT_KINDS.items() if not isinstance(content.get(name) or kind(), kind)]
    if wrong:
        problems.append(f"{path}: {', '.join(wrong)} cannot be read; the rest of the verdict is shown.")
    return {name: value for name, value in content.items() if name not in wrong}


def _audit(path: Path, problems: list[str]) -> dict[str, Any]:
    """The audit as it is shown."""
    content = _mapping(path, problems)
    try:
        return {"rows": audit_rows(content), "sentences": audit_words(content)} if content else {}
    except (KeyError, TypeError, AttributeError, ValueError) as problem:
        problems.append(f"{path}: it cannot be read ({type(problem).__name__}: {problem}); audit the run again.")
        return {}


def _mapping(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
    except ValueError as problem:
        problems.append(str(problem))
        return {}
    if not isinstance(content, dict):
        problems.append(f"{path}: a JSON object is expected, not {type(content).__name__}.")
        return {}
    return content


def read_runs(
    paths: Sequence[Path], target: Path | None = None, retain_only: Path | None = None
) -> tuple[list[Run], list[str]]:
    """Read all of them; the target and the retain-only model come first.

    Without `target` and `retain_only`, those that the runs themselves name are taken where they are there.

    Returns:
        The runs, and what is wrong, a line each.

    Raises:
        ValueError: if `target` or `retain_only` is given and cannot be read.
    """
    runs: list[Run] = []
    problems: list[str] = []
    wanted = list(dict.fromkeys(paths))
    configurations = [_configuration(path) for path in wanted]
    found_target = target or _named(configurations, "model_name_or_path")
    found_retain = retain_only or _named(configurations, "retain_results")
    anchors = {TARGET: found_target, RETAIN_ONLY: found_retain}
    for role, path, given in ((TARGET, found_target, target), (RETAIN_ONLY, found_retain, retain_only)):
        if path is not None:
            try:
                runs.append(read_run(path, role, found_retain))
            except ValueError as problem:
                if given is not None:
                    raise ValueError(f"{'target' if role == TARGET else 'retain_only'}: {problem}") from problem
    known = {_home(path) for path in anchors.values() if path is not None}
    for path in wanted:
        if _home(path) in known:
            continue
        try:
            runs.append(read_run(path, RUN, found_retain))
        except (ValueError, OSError) as problem:
            problems.append(" ".join(str(problem).split()))
    _name_apart(runs)
    return runs, problems + [" ".join(note.split()) for run in runs for note in run.notes]


def _home(path: Path) -> Path:
    resolved = path.resolve()
    return resolved.parent if resolved.name == RESULT_FILE else resolved


def _configuration(path: Path) -> Mapping[str, Any]:
    try:
        found = read_record(path).get("configuration", {}) if path.is_dir() else {}
    except ValueError:
        return {}  # it is told when the run is read
    return found if isinstance(found, dict) else {}


def _named(configurations: Sequence[Mapping[str, Any]], option: str) -> Path | None:
    """What all runs that say something name under an option, if it holds results."""
    named = {str(each[option]) for each in configurations if each.get(option)}
    if len(named) != 1:
        return None
    path = Path(named.pop())
    return path if path.is_file() or (path / RESULT_FILE).is_file() else None


def _name_apart(runs: Sequence[Run]) -> None:
    """Lengthen names by folders above until no two are equal."""
    for run in runs:
        if run.path.name == RESULT_FILE:
            run.name = run.path.resolve().parent.name
    for depth in (2, 3, 4):
        names = [run.name for run in runs]
        for run in runs:
            if names.count(run.name) > 1:
                run.name = "/".join(run.path.resolve().parts[-depth:])
