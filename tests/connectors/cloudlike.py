"""Help for the tests of record-by-record connectors: build a record, break it, read its event."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from aftergate.connectors.base import Source
from aftergate.errors import Reject
from aftergate.events.interning import Interner
from aftergate.vocabulary import Event

Json = dict[str, Any]
WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**15,
    1.5,
    "",
    "x",
    "\u0000é",
    [],
    [[]],
    [None, 3, {"a": 1}],
    {},
    {"sub": {}},
    {"name": [], "x": None},
)


INTERNER = Interner()  # caches only, and slow to fill: one for all tests


def raw(record: Any) -> bytes:
    return json.dumps(record).encode()


def events(source: Source, record: Any) -> list[Event]:
    found = source.normaliser(INTERNER).parse(record if isinstance(record, bytes) else raw(record))
    return found if isinstance(found, list) else [found]


def event(source: Source, record: Any) -> Event:
    (only,) = events(source, record)
    return only


def facts(found: Event) -> Json:
    """What tables compare: the flat facts of an event, empty ones left out."""
    detail = found.d
    values: Json = {
        "id": found.id,
        "kind": str(found.kind),
        "action": found.action.name,
        "klass": found.action.klass,
        "tags": sorted(str(tag) for tag in found.action.tags),
        "actor": found.actor.id,
        "actor_kind": found.actor.kind,
        "ip": found.origin.ip,
        "credential": found.credential,
        "session": found.session,
        "target": found.target,
        "error": found.shape.error,
        "size": found.size,
        "silent": found.shape.silent,
        "client": found.shape.client,
        "part": found.part,
    }
    values.update({name: getattr(detail, name) for name in detail.__struct_fields__ if name not in ("targets", "changes", "params")})
    return {name: value for name, value in values.items() if value not in (None, (), "", 0, False, [])}


def broken(record: Any) -> Iterator[Any]:
    """The record with each value in turn replaced by values of wrong types, and each left out."""
    for path in _paths(record):
        for value in WRONG:
            copied = copy.deepcopy(record)
            _at(copied, path[:-1])[path[-1]] = value
            yield copied
        copied = copy.deepcopy(record)
        del _at(copied, path[:-1])[path[-1]]
        yield copied


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*before, key)
        yield from _paths(inner, (*before, key))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def survives(source: Source, records: list[Json]) -> int:
    """Feed every broken form; only Reject and msgspec's errors may come out. Returns how many were still readable."""
    normaliser = source.normaliser(INTERNER)
    readable = 0
    for record in records:
        assert source.recognise(record) in (True, False)
        for form in broken(record):
            source.recognise(form)
            try:
                found = normaliser.parse(raw(form))
            except (Reject, msgspec.MsgspecError):
                continue
            for one in found if isinstance(found, list) else [found]:
                assert isinstance(one.id, str)
                assert one.id
                assert isinstance(one.time, int)
                msgspec.json.encode(one.d)  # plain values only
            readable += 1
    garbage = [b"", b"[]", b"null", b"1", b'"x"', b"{}", b'{"action":"\xff"}', b'{"a":', b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"]
    for line in garbage:
        try:
            normaliser.parse(line)
        except (Reject, msgspec.MsgspecError):
            continue
        raise AssertionError(line[:40])
    return readable
