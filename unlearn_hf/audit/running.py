"""Running an audit: every attack on every model, each finding kept at once, so that a killed audit goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from accelerate.utils import broadcast_object_list

from unlearn_hf.audit.base import AuditAttack, AuditPass, Findings
from unlearn_hf.audit.comparison import Values, compare, robustness
from unlearn_hf.audit.plan import Plan
from unlearn_hf.common.files import read_json, write_json
from unlearn_hf.evaluation.engine import settings_fingerprint

CLAIM = (
    "Evidence, not proof: this says what was tried, and what came back. Weights cannot be shown to hold nothing; an "
    "attack that is not here may bring back more."
)
AllFindings = dict[str, dict[str, dict[str, Findings]]]
"""Model (`run`, `retain`, `target`) -> attack -> variant -> findings."""


def attack_models(
    models: Mapping[str, Callable[[], Any]],
    plan: Plan,
    with_model: Callable[[Any], AuditPass],
    say: Callable[[str], None],
) -> AllFindings:
    """Attack every model.

    Args:
        models: `run` first, then `retain` and `target` where they are known; each is loaded when its turn comes.
        plan: what is done.
        with_model: what an attack may use, around a model.
        say: shows a line.
    """
    found: AllFindings = {}
    for role, load in models.items():
        common = with_model(load())
        identity = common.engine.fingerprint(common.model, common.tokenizer, common.accelerator)
        found[role] = {name: {} for name in plan.of(role)}
        for name, attack in plan.of(role).items():
            for variant in attack.variants():
                run = replace(common, earlier=None if role == "run" else found["run"][name][variant])
                findings = _found(run, attack, variant, f"{role}-{name}-{variant}", identity, say)
                found[role][name][variant] = findings
    return found


def _found(
    run: AuditPass, attack: AuditAttack, variant: str, name: str, identity: str, say: Callable[[str], None]
) -> Findings:
    """A finding, from the disk where an interrupted audit has left it."""
    assert run.folder is not None
    rows = [list(map(dict, each)) for each in (run.forget, run.retain, run.holdout)]
    earlier = run.earlier.rows if run.earlier is not None else None
    key = settings_fingerprint(identity, name, attack.version, rows, asdict(run.settings), run.retain_model, earlier)
    file = run.folder / f"{name}-{key[:16]}.json"
    (there,) = broadcast_object_list([file.is_file()])  # the first process tells them all
    if there:
        return Findings(**read_json(file))
    say(name.replace("-", ", "))
    findings = attack.findings(run, variant)
    if run.accelerator is None or run.accelerator.is_main_process:
        write_json(file, asdict(findings), strict=True)
    return findings


def compare_models(found: AllFindings, plan: Plan, seed: int = 0) -> list[dict[str, Any]]:
    """One entry for each attack, variant and measure, see `compare`."""
    entries = []
    for name, attack in plan.attacks.items():
        for variant, findings in found["run"][name].items():
            for measure, after in findings.values.items():
                if not any(value is not None for value in after):
                    continue
                columns = {
                    "after": after,
                    "retain": _values(found, "retain", name, variant, measure),
                    "target": _values(found, "target", name, variant, measure),
                }
                if attack.compared_by:
                    for column, role in (("before", "run"), ("retain_before", "retain"), ("target", "target")):
                        columns[column] = columns.get(column) or _as_it_is(found, role, measure, findings.rows)
                given = {column: values for column, values in columns.items() if values is not None}
                numbers = compare(given, attack.compared_by, seed)
                if attack.judges == "retain":  # nothing is to come back of what is kept
                    numbers.pop("came_back", None)
                entries.append(
                    {"attack": name, "variant": variant, "measure": measure, "judges": attack.judges, **numbers}
                )
    return entries


def _values(found: AllFindings, role: str, name: str, variant: str, measure: str) -> Values | None:
    findings = found.get(role, {}).get(name, {}).get(variant)
    return None if findings is None else findings.values.get(measure)


def _as_it_is(found: AllFindings, role: str, measure: str, rows: Sequence[int]) -> Values | None:
    """A measure of a model that is not attacked, of the rows that were judged; `None` where it was not measured."""
    values = _values(found, role, "memorisation", "all", measure)
    return None if values is None else [values[row] for row in rows]


def robustness_of(found: AllFindings, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Harmonic mean of R (all forget rows, all weights) and Q (NF4), by measure, where both are there."""
    places = {
        "before": ("run", "memorisation", "all"),
        "relearnt": ("run", "relearning", "forget"),
        "quantised": ("run", "quantisation", "nf4"),
        "retain_before": ("retain", "memorisation", "all"),
        "retain_relearnt": ("retain", "relearning", "forget"),
    }
    robust = {}
    for measure, before in found["run"]["memorisation"]["all"].values.items():
        columns = {what: _values(found, *place, measure) for what, place in places.items()}
        given = {what: values for what, values in columns.items() if values is not None}
        if len(given) == len(places) and any(value is not None for value in before):
            robust[measure] = robustness(given, seed)
    return robust


def audit_content(
    found: AllFindings, plan: Plan, fingerprints: Mapping[str, Any], models: Mapping[str, str | None],
    settings: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """What `audit.json` holds.

    Args:
        found: of every model.
        plan: what was done.
        fingerprints: of the weights, by model, and of the data.
        models: what each is called; `None` for one that was not given.
        settings: of the audit, JSON-ready.
    """
    return {
        "claim": CLAIM,
        "models": {role: name or "no baseline" for role, name in models.items()},
        "fingerprints": dict(fingerprints),
        "settings": dict(settings),
        "attacks": {
            name: {"summary": each.summary, "paper": each.paper, "version": each.version, "shown": list(each.shown)}
            for name, each in plan.attacks.items()
        },
        "left_out": plan.left_out,
        "results": compare_models(found, plan, settings["seed"]),
        "robustness": robustness_of(found, settings["seed"]),
        "samples": {
            role: {
                name: {variant: asdict(each) for variant, each in variants.items()} for name, variants in by.items()
            }
            for role, by in found.items()
        },
    }
