"""Runs as a report sees them: our run folders, and evaluation logs of others."""

from __future__ import annotations

from collections.abc import Sequence
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


def read_run(path: Path, role: str = RUN) -> Run:
    """Read a run folder or a log; what is damaged is noted, what is whole is kept.

    Args:
        path: a run folder, a folder with a log, or a log.
        role: see `Run`.

    Raises:
        ValueError: if there is nothing of a run at all.
    """
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder.")
    run = Run(path, path.resolve().name, role)
    problems = run.notes
    if path.is_dir():
        for name, read in (("record", read_record), ("ledger", read_ledger)):
            try:
                setattr(run, name, read(path))
            except ValueError as problem:
                problems.append(str(problem))
        history = _mapping(path / TRAINER_STATE, problems).get("log_history")
        run.history = [line for line in history if isinstance(line, dict)] if isinstance(history, list) else []
        run.verdict = _verdict(path / VERDICT, problems)
        run.audit = _audit(path / AUDIT_FILE, problems)
    try:
        if (source := _evaluation(path)) is not None:
            run.log = read_log(source)
            own = run.log.kind == "unlearn_hf" and run.log.path.suffix == ".json"
            run.values = read_result(run.log.path)[1] if own else recompute_values(source)
    except (ValueError, OSError) as problem:
        problems.append(str(problem))
    if not (run.record or run.values):
        raise ValueError(problems[0] if problems else f"{path}: it is no run folder (no {RECORD}) and no result file.")
    if not run.values and not problems:
        run.notes.append(f"{path}: it has no evaluation; unlearn-hf evaluate --model_name_or_path {path} makes one.")
    return run


def _evaluation(path: Path) -> Path | None:
    """Where the results are: at the top, else the newest that `evaluate` wrote into the folder."""
    if not path.is_dir() or (path / RESULT_FILE).exists():
        return path
    inside = sorted(path.glob(f"evaluations/*/{RESULT_FILE}"), key=lambda file: file.stat().st_mtime)
    if inside:
        return inside[-1]
    return None if (path / RECORD).exists() else path


def _add_forget_quality(run: Run, retain_only: Path) -> None:
    """Take it from the retain-only model, where the run has none."""
    if run.log is None or not run.values or "forget_quality" in run.values:
        return
    try:
        run.values = {**recompute_values(run.log.path, retain_only), **run.values}
    except ValueError as problem:
        run.notes.append(f"{run.path}: not compared with {retain_only}: {problem}")


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
    for path in dict.fromkeys(paths):
        try:
            runs.append(read_run(path))
        except (ValueError, OSError) as problem:
            problems.append(" ".join(str(problem).split()))
    retain = retain_only or _named(runs, "retain_results")
    anchors = {TARGET: target or _named(runs, "model_name_or_path"), RETAIN_ONLY: retain}
    known = {_home(path) for path in anchors.values() if path is not None}
    runs = [run for run in runs if _home(run.path) not in known]
    for role, option, given in ((RETAIN_ONLY, "retain_only", retain_only), (TARGET, "target", target)):
        if (anchor := anchors[role]) is not None:
            try:
                runs.insert(0, read_run(anchor, role))
            except ValueError as problem:
                if given is not None:
                    raise ValueError(f"{option}: {problem}") from problem
    if retain is not None:
        for run in runs:
            _add_forget_quality(run, retain)
    _name_apart(runs)
    return runs, problems + [" ".join(note.split()) for run in runs for note in run.notes]


def _home(path: Path) -> Path:
    resolved = path.resolve()
    return resolved.parent if resolved.name == RESULT_FILE else resolved


def _named(runs: Sequence[Run], option: str) -> Path | None:
    """What all runs that say something name under an option, if it holds results."""
    named = {str(run.configuration[option]) for run in runs if run.configuration.get(option)}
    path = Path(named.pop()) if len(named) == 1 else None
    return path if path is not None and (path.is_file() or (path / RESULT_FILE).is_file()) else None


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
