"""What a policy reads: found in Cedar's JSON form of it (the EST), once, when the set is loaded.

`context` is known by path (`context.live.trust.lowest`). Entities are known by attribute name only, because an entity may be reached in many ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

EntityKey = tuple[str, str]  # type and id


class Reads:
    """A tree of the context members that are read. `whole`: the value itself is used, so all below it counts."""

    __slots__ = ("members", "whole")

    def __init__(self) -> None:
        self.members: dict[str, Reads] = {}
        self.whole = False

    def add(self, path: tuple[str, ...], *, whole: bool) -> None:
        node = self
        for name in path:
            node = node.members.setdefault(name, Reads())
        node.whole = node.whole or whole

    def merge(self, other: Reads) -> None:
        self.whole = self.whole or other.whole
        for name, below in other.members.items():
            self.members.setdefault(name, Reads()).merge(below)

    def covers(self, *path: str) -> bool:
        """Whether what stands at this path can be seen."""
        node = self
        for name in path:
            if node.whole:
                return True
            below = node.members.get(name)
            if below is None:
                return False
            node = below
        return True

    def paths(self, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        """Every path that is read, shortest first on each branch."""
        if self.whole or not self.members:
            yield prefix
        for name, below in sorted(self.members.items()):
            yield from below.paths((*prefix, name))


class Footprint:
    """All that one policy, or several, can see of a request."""

    __slots__ = ("attributes", "context", "literals")

    def __init__(self) -> None:
        self.context = Reads()
        self.attributes: set[str] = set()  # of any entity
        self.literals: set[EntityKey] = set()  # entities named in conditions and scopes

    def merge(self, other: Footprint) -> None:
        self.context.merge(other.context)
        self.attributes |= other.attributes
        self.literals |= other.literals


def footprint(est: dict[str, Any]) -> Footprint:
    """What a policy in Cedar's JSON form reads."""
    found = Footprint()
    for slot in ("principal", "action", "resource"):
        found.literals.update(scope_entities(est[slot]))
    for condition in est["conditions"]:
        _walk(condition["body"], found)
    return found


def scope_entities(scope: dict[str, Any]) -> Iterable[EntityKey]:
    """Entities that a scope names: `== e`, `in e`, `in [e, ...]`, `is T in e`."""
    held = [scope["entity"]] if "entity" in scope else scope.get("entities", [])
    inner = scope.get("in")
    if inner and "entity" in inner:
        held = [*held, inner["entity"]]
    return [(each["type"], each["id"]) for each in held]


def _context_path(expression: Any) -> tuple[str, ...] | None:
    """(`live`, `trust`) for `context.live.trust`; None for what does not start at `context`."""
    names: list[str] = []
    while isinstance(expression, dict) and len(expression) == 1 and "." in expression:
        names.append(expression["."]["attr"])
        expression = expression["."]["left"]
    if expression == {"Var": "context"}:
        return tuple(reversed(names))
    return None


def _walk(expression: Any, found: Footprint) -> None:
    if isinstance(expression, list):
        for each in expression:
            _walk(each, found)
        return
    if not isinstance(expression, dict):
        return
    path = _context_path(expression)
    if path is not None:
        found.context.add(path, whole=True)
        return
    for kind, held in expression.items():
        if kind in (".", "has") and isinstance(held, dict) and "attr" in held:
            base = _context_path(held["left"])
            if base is not None:  # only `has` comes here: a `.` on the context was a path above
                found.context.add((*base, held["attr"]), whole=False)
            else:
                found.attributes.add(held["attr"])
                _walk(held["left"], found)
        elif kind == "Value":
            _literals(held, found)
        elif kind == "__entity":
            found.literals.add((held["type"], held["id"]))
        else:
            _walk(held, found)


def _literals(value: Any, found: Footprint) -> None:
    if isinstance(value, list):
        for each in value:
            _literals(each, found)
    elif isinstance(value, dict):
        named = value.get("__entity")
        if isinstance(named, dict):
            found.literals.add((named["type"], named["id"]))
        else:
            for each in value.values():
                _literals(each, found)
