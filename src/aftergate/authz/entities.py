"""The entities that the operator gave (`--entities FILE`, Cedar JSON) and those that a request brings.

Adding one entity to a parsed set of 100,000 copies all of it. So a request that brings nothing the policies read uses the shared set, and
one that does gets a small set of its own: whatever a policy could reach from this principal, this resource and the entities that policies name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import cedarpy
import msgspec
from msgspec import Struct

from aftergate.authz.errors import PolicyError, Problem
from aftergate.authz.reads import EntityKey

ACTION: Final = "Action"
_ENCODE: Final = msgspec.json.Encoder().encode


class _Head(Struct):
    uid: dict[str, Any]
    parents: list[dict[str, Any]] = []


class _Body(Struct):
    attrs: dict[str, Any] = {}
    tags: dict[str, Any] = {}


_RAWS = msgspec.json.Decoder(list[msgspec.Raw]).decode
_HEAD = msgspec.json.Decoder(_Head).decode
_BODY = msgspec.json.Decoder(_Body).decode


class Stored:
    """One entity of the file: its bytes, and what it leads to, found when first asked for."""

    __slots__ = ("_attributes", "_leads_to", "parents", "raw")

    def __init__(self, raw: msgspec.Raw, parents: tuple[EntityKey, ...]) -> None:
        self.raw = raw
        self.parents = parents
        self._attributes: dict[str, Any] | None = None
        self._leads_to: tuple[EntityKey, ...] | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes in Cedar's JSON form."""
        if self._attributes is None:
            self._attributes = _BODY(self.raw).attrs
        return self._attributes

    @property
    def leads_to(self) -> tuple[EntityKey, ...]:
        """Parents, and the entities that attributes and tags hold."""
        if self._leads_to is None:
            found = list(self.parents)
            if b"__entity" in bytes(self.raw):
                body = _BODY(self.raw)
                _referenced(body.attrs, found)
                _referenced(body.tags, found)
            self._leads_to = tuple(found)
        return self._leads_to


class EntityStore:
    """All stored entities, immutable. Threads may share it."""

    def __init__(self, handle: cedarpy.Entities, index: dict[EntityKey, Stored], digest: str) -> None:
        self.handle = handle
        self.index = index
        self.digest = digest
        self.ids: dict[str, list[str]] = {}
        for type_, id_ in index:
            self.ids.setdefault(type_, []).append(id_)
        for held in self.ids.values():
            held.sort()
        actions = [key for key in index if key[0] == ACTION]
        self.action_ancestors: dict[EntityKey, frozenset[EntityKey]] = {key: frozenset(self._above(key)) for key in actions}
        self.action_groups: frozenset[EntityKey] = frozenset(parent for key in actions for parent in index[key].parents)

    def __len__(self) -> int:
        return len(self.index)

    def _above(self, key: EntityKey) -> set[EntityKey]:
        found: set[EntityKey] = set()
        todo = list(self.index[key].parents)
        while todo:
            parent = todo.pop()
            if parent not in found:
                found.add(parent)
                held = self.index.get(parent)
                todo.extend(held.parents if held else ())
        return found

    def merged(self, key: EntityKey, brought: Mapping[str, Any]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        """What a request's properties (in Cedar's JSON form) add to an entity: the new attributes, or None if nothing is new,
        and the names where the request says something else than the store. There the stored one wins.
        """
        stored = self.index.get(key)
        if stored is None:
            return (dict(brought) if brought else None), ()
        held = stored.attributes
        new = {name: value for name, value in brought.items() if name not in held}
        conflicts = tuple(sorted(name for name, value in brought.items() if name in held and not same(held[name], value)))
        return (new or None), conflicts

    def closure(self, roots: Iterable[EntityKey], brought: Mapping[EntityKey, Mapping[str, Any]]) -> cedarpy.Entities:
        """A set of its own with everything that policies can reach from the roots, and the attributes brought to some of them.

        It has no bound: a graph where one entity leads to all others costs a parse of all of them, and is right.
        Raises: ValueError from Cedar, for a value that it refuses.
        """
        parts: list[bytes | msgspec.Raw] = []
        todo = list(roots)
        seen = set(todo)
        while todo:
            key = todo.pop()
            stored = self.index.get(key)
            extra = brought.get(key)
            if stored is None:
                if extra is not None:
                    parts.append(_ENCODE({"uid": {"type": key[0], "id": key[1]}, "attrs": extra, "parents": []}))
                continue
            if extra:
                whole = msgspec.json.decode(stored.raw)
                whole["attrs"] = {**extra, **whole.get("attrs", {})}
                parts.append(_ENCODE(whole))
            else:
                parts.append(stored.raw)
            for other in stored.leads_to:
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        return cedarpy.Entities.from_json_str((b"[" + b",".join(bytes(part) for part in parts) + b"]").decode())


def load(data: bytes, name: str = "entities.json", schema: str | None = None) -> EntityStore:
    """Entities from a file's bytes, checked against the schema if there is one; a schema's actions and their groups come with it.

    Raises: PolicyError, naming the file.
    """
    try:
        text = data.decode("utf-8")
        handle = cedarpy.Entities.from_json_str(text, schema)
        # With a schema Cedar reads `{"type": ..., "id": ...}` as an entity too; written out again every reference is explicit.
        index = _index(data if schema is None else str(handle).encode())
    except UnicodeDecodeError as error:
        raise PolicyError([Problem(name, 1 + data.count(b"\n", 0, error.start), "not UTF-8")]) from None
    except (ValueError, RecursionError) as error:
        raise PolicyError(
            [Problem(name, _line(data, str(error)), str(error), "the file holds an array of {uid, attrs, parents}")]
        ) from None
    return EntityStore(handle, index, f"sha256:{hashlib.sha256(data).hexdigest()}")


def empty(schema: str | None = None) -> EntityStore:
    """No entities but the schema's actions."""
    return load(b"[]", schema=schema)


def _index(data: bytes) -> dict[EntityKey, Stored]:
    interned: dict[str, str] = {}
    index: dict[EntityKey, Stored] = {}
    for raw in _RAWS(data):
        head = _HEAD(raw)
        type_, id_ = _key(head.uid)
        index[interned.setdefault(type_, type_), id_] = Stored(raw, tuple(_key(parent) for parent in head.parents))
    return index


def _key(uid: dict[str, Any]) -> EntityKey:
    """Cedar JSON names an entity as `{type, id}`, or with the `__entity` escape around it."""
    inner = uid.get("__entity", uid)
    return inner["type"], inner["id"]


def _referenced(value: Any, found: list[EntityKey]) -> None:
    if isinstance(value, dict):
        named = value.get("__entity")
        if isinstance(named, dict):
            found.append((named["type"], named["id"]))
        else:
            for held in value.values():
                _referenced(held, found)
    elif isinstance(value, list):
        for held in value:
            _referenced(held, found)


def _line(data: bytes, message: str) -> int:
    """Cedar names the entity, JSON faults name a line: either gives a place to look."""
    _, _, tail = message.rpartition(" at line ")
    number = tail.split(" ")[0]
    if number.isdigit():
        return int(number)
    for fragment in message.split("`")[1::2]:
        id_ = fragment.rpartition('::"')[2].removesuffix('"')
        at = data.find(json.dumps(id_).encode()) if id_ != fragment else -1
        if at >= 0:
            return 1 + data.count(b"\n", 0, at)
    return 0


def same(stored: Any, brought: Any) -> bool:
    """Whether two values are one to Cedar: sets have no order and count nothing twice."""
    if isinstance(stored, list) and isinstance(brought, list):
        return all(any(same(a, b) for b in brought) for a in stored) and all(any(same(a, b) for a in stored) for b in brought)
    if isinstance(stored, dict) and isinstance(brought, dict):
        return stored.keys() == brought.keys() and all(same(stored[name], brought[name]) for name in stored)
    return type(stored) is type(brought) and bool(stored == brought)
