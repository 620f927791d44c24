"""What an audit will do, and what that costs, before any model is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn_hf.audit.base import AUDIT_ATTACKS, AuditAttack, Sizes
from unlearn_hf.common.terminal import readable_size

ALL = "all"
_BYTES_PER_VALUE = 64
_VALUES_PER_ROW = 100


@dataclass(frozen=True)
class Plan:
    """What will be done.

    Attributes:
        attacks: by name.
        left_out: attacks that are not made, and why.
    """

    attacks: dict[str, AuditAttack]
    left_out: dict[str, str]

    def of(self, role: str) -> dict[str, AuditAttack]:
        """The attacks that are made on a model; the target is not changed."""
        return {name: each for name, each in self.attacks.items() if role != "target" or not each.changes_model}


def check_attacks(names: Sequence[str]) -> None:
    """Raise a `ValueError` for a name that no attack has."""
    for name in names:
        if name != ALL:
            AUDIT_ATTACKS.find(name)


def make_plan(names: Sequence[str], holdout: int) -> Plan:
    """The attacks that are made: those named, `all`, or the cheap ones; `memorisation`, the comparison, always is.

    Raises:
        ValueError: for an unknown attack, or one that is asked for and cannot be made.
    """
    check_attacks(names)
    chosen = list(AUDIT_ATTACKS) if ALL in names else list(dict.fromkeys(names))
    if not names:
        chosen = [name for name, attack in AUDIT_ATTACKS.items() if attack.cheap]
    left_out = {name: f"it was not asked for (--attacks {name})" for name in AUDIT_ATTACKS if name not in chosen}
    made = {}
    for name in dict.fromkeys(["memorisation", *chosen]):
        left_out.pop(name, None)
        if AUDIT_ATTACKS[name].needs_holdout and not holdout:
            if name in names:
                raise ValueError(f"attacks: {name} needs rows that no model has seen, and these data have none.")
            left_out[name] = "the data have no holdout rows"
        else:
            made[name] = AUDIT_ATTACKS[name]
    return Plan(made, left_out)


def cost_lines(plan: Plan, sizes: Sizes, roles: Sequence[str], weights: int) -> list[str]:
    """What the audit will cost, a line for each attack and one for memory and disk.

    Args:
        plan: what will be done.
        sizes: of the data.
        roles: the models that are attacked.
        weights: bytes of the weights of one model.
    """
    lines = [f"{'attack':<16}{'models':>7}{'texts scored':>14}{'answers':>10}{'steps':>7}{'temporary disk':>16}"]
    for name, attack in plan.attacks.items():
        models = sum(name in plan.of(role) for role in roles)
        work = attack.work(sizes)
        disk = readable_size(models * _bytes(attack, sizes))
        numbers = f"{models:>7}{models * work.texts:>14}{models * work.answers:>10}{models * work.steps:>7}{disk:>16}"
        lines.append(f"{name:<16}{numbers}")
    copies = 5 if any(attack.work(sizes).steps for attack in plan.attacks.values()) else 2
    return [
        *lines,
        f"attacked copies are held in memory (up to {readable_size(copies * weights)}) and never written; results "
        f"on the disk, up to {readable_size(needed_bytes(plan, sizes, roles))}, make the audit resumable and go at "
        "its end",
    ]


def needed_bytes(plan: Plan, sizes: Sizes, roles: Sequence[str]) -> int:
    """Room that temporary results and `audit.json` take at most."""
    return 2 * sum(_bytes(attack, sizes) for role in roles for attack in plan.of(role).values())


def _bytes(attack: AuditAttack, sizes: Sizes) -> int:
    """Scores and texts of one attack on one model, as they are kept until the end."""
    work = attack.work(sizes)
    return 1024 * (work.texts + work.answers) + sizes.forget * _VALUES_PER_ROW * _BYTES_PER_VALUE


def check_room(folder: Path, needed: int) -> None:
    """Refuse an audit whose results will not fit.

    Raises:
        ValueError: saying how much is needed and how much there is.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"run: {str(folder)!r} has room for {readable_size(free)}, and the audit writes up to "
            f"{readable_size(needed)}; make room, give fewer --samples, or name fewer --attacks."
        )
