"""Running an audit: every attack on every model, each finding kept at once, so that a killed audit goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unlearn_hf.audit.base import AUDIT_ATTACKS, AuditAttack, AuditPass, Findings
from unlearn_hf.audit.comparison import Compared, Values, compare, robustness
from unlearn_hf.common.files import read_json, write_json
from unlearn_hf.evaluation.engine import settings_fingerprint
from unlearn_hf.models.fingerprint import model_fingerprint

AUDIT_FILE = "audit.json"
PARTIAL = "audit_partial"
_BYTES_PER_VALUE = 64
CLAIM = (
    "Evidence, not proof: this says what was tried, and what came back. Weights cannot be shown to hold nothing; an "
    "attack that is not here may bring back more."
)
AllFindings = dict[str, dict[str, dict[str, Findings]]]
"""Model (`run`, `retain`, `target`) -> attack -> variant -> findings."""


@dataclass(frozen=True)
class Plan:
    """What will be done.

    Attributes:
        attacks: by name.
        left_out: attacks that cannot be made, and why.
    """

    attacks: dict[str, AuditAttack]
    left_out: dict[str, str]

    def of(self, model: str, samples: int) -> Iterator[tuple[str, str, AuditAttack]]:
        """Attack, variant and unit, for a model; the target is not changed."""
        for name, attack in self.attacks.items():
            if model != "target" or not attack.changes_model:
                for variant in attack.variants(samples):
                    yield name, variant, attack


def make_plan(only: Sequence[str], holdout: int) -> Plan:
    """The attacks that are made: those of `only`, or all; what they are compared with is always measured.

    Raises:
        ValueError: for an unknown attack, or one that is asked for and cannot be made.
    """
    chosen = {name: AUDIT_ATTACKS.find(name) for name in only or AUDIT_ATTACKS}
    lacking = [name for name, attack in chosen.items() if attack.needs_holdout and not holdout]
    if only and lacking:
        raise ValueError(f"only: {lacking[0]} needs rows that no model has seen, and these data have none.")
    made = {"memorisation": AUDIT_ATTACKS["memorisation"], **chosen}
    return Plan(
        {name: each for name, each in made.items() if name not in lacking},
        dict.fromkeys(lacking, "the data have no holdout rows"),
    )


def costs(plan: Plan, weights: int, forget: int, samples: int) -> list[str]:
    """What the audit will cost, a line each.

    Args:
        plan: what will be done.
        weights: bytes of the model.
        forget: number of forget rows.
        samples: sampled answers of each question.
    """
    lines = [f"{name}: {attack.cost}" for name, attack in plan.attacks.items()]
    changed = any(attack.changes_model for attack in plan.attacks.values())
    memory = f"attacked copies stay in memory, up to {weights * (5 if changed else 1) / 1e9:.2g} GB with the model"
    return [*lines, f"{memory}; on the disk up to {result_bytes(forget, samples) / 1e6:.2g} MB of results"]


def result_bytes(forget: int, samples: int) -> int:
    """Room that partial and final results take at most: texts of samples, and some 100 values a row and model."""
    return forget * (2 * samples * 1024 + 300 * _BYTES_PER_VALUE)


def check_room(folder: Path, forget: int, samples: int) -> None:
    """Refuse an audit whose results will not fit.

    Raises:
        ValueError: saying how much is needed and how much there is.
    """
    needed, free = result_bytes(forget, samples), shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"run: {str(folder)!r} has room for {free / 1e6:.3g} MB, and the audit writes up to {needed / 1e6:.3g} "
            "MB; make room, or give fewer --samples."
        )


def attack_models(
    models: Mapping[str, Callable[[], Any]], plan: Plan, common: AuditPass, say: Callable[[str], None]
) -> tuple[AllFindings, dict[str, str]]:
    """Attack every model.

    Args:
        models: `run` first, then `retain` and `target` where they are known; each is loaded when its turn comes.
        plan: what is done.
        common: everything but the model.
        say: shows a line.

    Returns:
        Everything that was found, and the fingerprint of each model.

    Raises:
        ValueError: when the target or the retain-only model is the run itself.
    """
    found: AllFindings = {}
    fingerprints: dict[str, str] = {}
    main = common.accelerator is None or common.accelerator.is_main_process
    for role, load in models.items():
        model = load()
        fingerprints[role] = model_fingerprint(model)
        if role != "run" and fingerprints[role] == fingerprints["run"]:
            option = "retain_run" if role == "retain" else role
            raise ValueError(f"{option}: this is the audited run itself; name another model, or leave it out.")
        for name, variant, attack in plan.of(role, common.samples):
            earlier = found["run"][name][variant] if role != "run" else None
            run = replace(common, model=model, earlier=earlier)
            key = _key(run, fingerprints[role], name, attack, variant)
            assert common.folder is not None
            file = common.folder / f"{role}-{name}-{variant}-{key[:16]}.json"
            if _there(file, common):
                findings = Findings(**read_json(file))
            else:
                say(f"{role}: {name}, {variant}")
                findings = attack.findings(run, variant)
                if main:
                    write_json(file, asdict(findings), strict=True)
            found.setdefault(role, {}).setdefault(name, {})[variant] = findings
        del model
    return found, fingerprints


def _there(file: Path, run: AuditPass) -> bool:
    """Whether a finding is on the disk, with one answer for all processes."""
    if run.accelerator is None or run.accelerator.num_processes == 1:
        return file.is_file()
    from accelerate.utils import broadcast_object_list

    return bool(broadcast_object_list([file.is_file()])[0])


def _key(run: AuditPass, fingerprint: str, name: str, attack: AuditAttack, variant: str) -> str:
    """Hash of what a finding depends on."""
    rows = [list(map(dict, each)) for each in (run.forget, run.retain, run.holdout)]
    earlier = run.earlier.rows if run.earlier is not None else None
    settings = run.engine.settings()
    return settings_fingerprint(
        fingerprint, name, attack.version, variant, rows, settings, run.samples, run.seed, run.retain_model, earlier
    )


def compare_models(found: AllFindings, plan: Plan, seed: int = 0) -> list[dict[str, Any]]:
    """One entry for each attack, variant and measure, see `compare`."""
    entries = []
    for name, attack in plan.attacks.items():
        for variant, findings in found["run"][name].items():
            for measure, after in findings.values.items():
                if not any(value is not None for value in after):
                    continue
                before = _as_it_is(found, "run", measure, findings.rows) if attack.compared_by else None
                target = _same(found, "target", name, variant, measure)
                if target is None and attack.compared_by:
                    target = _as_it_is(found, "target", measure, findings.rows)
                values = Compared(
                    after,
                    before,
                    _same(found, "retain", name, variant, measure),
                    _as_it_is(found, "retain", measure, findings.rows) if attack.compared_by else None,
                    target,
                )
                numbers = compare(values, attack.compared_by, seed)
                entries.append(
                    {"attack": name, "variant": variant, "measure": measure, "judges": attack.judges, **numbers}
                )
    return entries


def _same(found: AllFindings, role: str, name: str, variant: str, measure: str) -> Values | None:
    findings = found.get(role, {}).get(name, {}).get(variant)
    return None if findings is None else findings.values.get(measure)


def _as_it_is(found: AllFindings, role: str, measure: str, rows: Sequence[int]) -> Values | None:
    """A measure of a model that is not attacked, of the rows that were judged."""
    if role not in found:
        return None
    values = found[role]["memorisation"]["all"].values[measure]
    return [values[row] for row in rows]


def robustness_of(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Harmonic mean of R (one epoch on all forget rows, all weights) and Q (NF4), by measure, where both are there."""

    def number(attack: str, variant: str, name: str) -> dict[str, float]:
        return {
            entry["measure"]: entry[name]["value"]
            for entry in entries
            if (entry["attack"], entry["variant"]) == (attack, variant) and name in entry
        }

    r, q = number("relearning", "forget_full", "R_one_sided"), number("quantisation", "nf4", "Q")
    return {measure: robustness(r[measure], q[measure]) for measure in r if measure in q}


def audit_content(
    found: AllFindings, plan: Plan, fingerprints: Mapping[str, str], data: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What `audit.json` holds.

    Args:
        found: of every model.
        plan: what was done.
        fingerprints: of the weights, by model.
        data: fingerprint of the rows.
        settings: of the audit, JSON-ready.
    """
    entries = compare_models(found, plan, settings["seed"])
    baselines = {role: "given" if role in found else "no baseline" for role in ("retain", "target")}
    return {
        "claim": CLAIM,
        "baselines": baselines,
        "fingerprints": {"weights": dict(fingerprints), "data": data},
        "settings": dict(settings),
        "attacks": {
            name: {"summary": each.summary, "paper": each.paper, "version": each.version}
            for name, each in plan.attacks.items()
        },
        "left_out": plan.left_out,
        "results": entries,
        "robustness": robustness_of(entries),
        "samples": {
            role: {
                name: {variant: asdict(each) for variant, each in variants.items()} for name, variants in by.items()
            }
            for role, by in found.items()
        },
    }
