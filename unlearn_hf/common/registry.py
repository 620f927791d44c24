"""Registries: units by name, from this package and from others, imported when they are used and not before."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any, Generic, TypeVar

Unit = TypeVar("Unit")


class Registry(Mapping[str, Unit], Generic[Unit]):
    """Units of one kind by name.

    A unit is given as itself, or as `"module:object"`, which is imported when the unit is asked for. Packages add
    theirs with `register`, or without a line of code by an entry point of the group `unlearn_hf.<kind>s`.

    Args:
        kind: what the units are, in the singular.
        units: those of this package.
    """

    def __init__(self, kind: str, units: Mapping[str, Unit | str]) -> None:
        self.kind = kind
        self._units: dict[str, Unit | str] = dict(units)
        self._complete = False

    def register(self, name: str, unit: Unit | str) -> None:
        """Add a unit.

        Raises:
            ValueError: if there is one of this name.
        """
        if name in self:
            raise ValueError(f"{self.kind}: {name!r} is there already; register it under another name.")
        self._units[name] = unit

    def remove(self, name: str) -> None:
        """Take a unit out again."""
        del self._known()[name]

    def find(self, name: str) -> Unit:
        """The unit of this name.

        Raises:
            ValueError: if there is none; it names the nearest one.
        """
        if name not in self:
            raise ValueError(
                f"{self.kind}: {name!r} is not known{nearest(name, list(self)) or '.'} There are {', '.join(self)}."
            )
        return self[name]

    def _known(self) -> dict[str, Unit | str]:
        if not self._complete:
            self._complete = True
            for point in entry_points(group=f"unlearn_hf.{self.kind}s"):
                self._units.setdefault(point.name, point.value)
        return self._units

    def __getitem__(self, name: str) -> Unit:
        unit: Any = self._known()[name]
        if isinstance(unit, str):
            unit = resolve_name(unit)
            self._units[name] = unit
        found: Unit = unit
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())


def nearest(name: str, known: Collection[str]) -> str:
    """`"; did you mean X?"`, or nothing when no known name is near."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""
