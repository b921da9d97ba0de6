"""Events as bytes, between processes: what recurs is sent once and then by number."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import TypeVar

import msgspec
from msgspec import Struct

from aftergate.events.interning import Interner
from aftergate.vocabulary import Action, Actor, Agent, Detail, Event, Kind, Origin, Shape, Tag

T = TypeVar("T")


class _ShapeRow(Struct, array_like=True, gc=False):
    source: str
    action: int
    actor: int
    origin: int
    agent: int
    error: str | None
    client: str | None
    client_name: str | None
    resource: str | None
    device: str | None
    silent: str | None
    account: str | None


class _ActionRow(Struct, array_like=True, gc=False):
    source: str
    name: str
    kind: str
    service: str
    klass: str
    tags: tuple[str, ...]


class _ActorRow(Struct, array_like=True, gc=False):
    id: str
    names: tuple[str, ...]
    kind: str
    account: str | None
    display: str | None
    role: str | None
    first_party: bool


class _OriginRow(Struct, array_like=True, gc=False, frozen=True):
    ip: str | None
    net: str
    asn: int | None
    asn_name: str | None
    network: str
    provider: str | None
    country: str | None
    trustworthy: bool
    basis: str


class _AgentRow(Struct, array_like=True, gc=False):
    raw: str
    family: str
    kind: str
    os: str | None
    version: str | None


class _Batch(Struct, array_like=True):
    actions: list[_ActionRow]
    actors: list[_ActorRow]
    origins: list[_OriginRow]
    agents: list[_AgentRow]
    shapes: list[_ShapeRow]
    # one column for each field of Event; None where every event has the default
    time: list[int]
    id: list[str]
    shape: list[int]
    texts: list[str | None]  # what credential, session and target number; 0 is none
    credential: list[int] | None
    session: list[int] | None
    target: list[int] | None
    size: list[int] | None
    known_at: list[int] | None
    part: list[int] | None
    details: list[Detail | None]  # what `detail` numbers; 0 is none
    detail: list[int] | None
    token: list[str | None] | None


class Packer:
    """One side of a stream of batches. Numbers are given out in the order values first appear."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self._counts = [0, 0, 0, 0, 0]
        self._keep: list[object] = []  # numbered objects stay alive, so that an identity is never reused
        self._encode = msgspec.msgpack.Encoder().encode

    def pack(self, events: list[Event]) -> bytes:
        batch = _Batch([], [], [], [], [], [], [], [], [None], None, None, None, None, None, None, [None], None, None)
        numbers = self._numbers
        shapes = batch.shape
        for e in events:
            shape = e.shape
            number = numbers.get(shape)
            shapes.append(self._shape(shape, batch) if number is None else number)
        batch.time = [e.time for e in events]
        batch.id = [e.id for e in events]
        texts: dict[str | None, int] = {None: 0}
        for name in ("credential", "session", "target"):
            values = [getattr(e, name) for e in events]
            if any(value is not None for value in values):
                setattr(batch, name, [texts.setdefault(value, len(texts)) for value in values])
        batch.texts = list(texts)
        details: dict[Detail | None, int] = {None: 0}  # by identity: a detail that events share goes over once
        column = [details.setdefault(e.detail, len(details)) for e in events]
        if len(details) > 1:
            batch.detail, batch.details = column, list(details)
        for name in ("size", "known_at", "part"):
            counts = [getattr(e, name) for e in events]
            if any(counts):
                setattr(batch, name, counts)
        tokens = [e.token for e in events]
        if any(token is not None for token in tokens):
            batch.token = tokens
        return self._encode(batch)

    def _number(self, kind: int, value: object) -> int:
        number = self._numbers[value] = self._counts[kind]
        self._counts[kind] += 1
        self._keep.append(value)
        return number

    def _shape(self, shape: Shape, batch: _Batch) -> int:
        numbers = self._numbers
        action = numbers.get(shape.action)
        if action is None:
            action = self._number(0, shape.action)
            a = shape.action
            batch.actions.append(_ActionRow(a.source, a.name, a.kind.value, a.service, a.klass, tuple(sorted(t.value for t in a.tags))))
        actor = numbers.get(shape.actor)
        if actor is None:
            actor = self._number(1, shape.actor)
            who = shape.actor
            batch.actors.append(_ActorRow(who.id, who.names, who.kind, who.account, who.display, who.role, who.first_party))
        origin = numbers.get(shape.origin)
        if origin is None:
            origin = self._number(2, shape.origin)
            o = shape.origin
            batch.origins.append(_OriginRow(o.ip, o.net, o.asn, o.asn_name, o.network, o.provider, o.country, o.trustworthy, o.basis))
        agent = numbers.get(shape.agent)
        if agent is None:
            agent = self._number(3, shape.agent)
            g = shape.agent
            batch.agents.append(_AgentRow(g.raw, g.family, g.kind, g.os, g.version))
        batch.shapes.append(
            _ShapeRow(
                shape.source,
                action,
                actor,
                origin,
                agent,
                shape.error,
                shape.client,
                shape.client_name,
                shape.resource,
                shape.device,
                shape.silent,
                shape.account,
            )
        )
        return self._number(4, shape)


class Unpacker:
    """The other side. Values are interned in the receiver, so that two senders' equal values are one object."""

    def __init__(self, intern: Interner, pool: dict[object, object] | None = None) -> None:
        self._intern = intern
        self._pool: dict[object, object] = pool if pool is not None else {}
        self._actions: list[Action] = []
        self._actors: list[Actor] = []
        self._origins: list[Origin] = []
        self._agents: list[Agent] = []
        self._shapes: list[Shape] = []
        self._decode = msgspec.msgpack.Decoder(_Batch).decode

    def unpack(self, data: bytes) -> list[Event]:
        batch = self._decode(data)
        for row in batch.actions:
            made = (Kind(row.kind), row.service, row.klass.rpartition(":")[2], [Tag(t) for t in row.tags])
            self._actions.append(self._intern.action(row.source, row.name, lambda _, made=made: made))  # type: ignore[misc]
        for actor in batch.actors:
            self._actors.append(
                self._intern.actor(actor.id, actor.names, actor.kind, actor.account, actor.display, actor.role, actor.first_party)
            )
        for o in batch.origins:
            origin = Origin(o.ip, o.net, o.asn, o.asn_name, o.network, o.provider, o.country, o.trustworthy, o.basis)
            self._origins.append(self._pool.setdefault(o, origin))  # type: ignore[arg-type]
        for g in batch.agents:
            agent = Agent(g.raw, g.family, g.kind, g.os, g.version)
            self._agents.append(self._pool.setdefault(("agent", g.raw), agent))  # type: ignore[arg-type]
        for s in batch.shapes:
            self._shapes.append(
                self._intern.shape(
                    s.source,
                    self._actions[s.action],
                    self._actors[s.actor],
                    self._origins[s.origin],
                    self._agents[s.agent],
                    s.error,
                    s.client,
                    s.client_name,
                    s.resource,
                    s.device,
                    s.silent,
                    s.account,
                )
            )

        def lookup(values: list[T], column: list[int] | None) -> Iterable[T | None]:
            return repeat(None) if column is None else map(values.__getitem__, column)

        return list(
            map(
                Event,
                batch.time,
                batch.id,
                map(self._shapes.__getitem__, batch.shape),
                lookup(batch.texts, batch.credential),
                lookup(batch.texts, batch.session),
                lookup(batch.texts, batch.target),
                batch.size if batch.size is not None else repeat(0),
                batch.known_at if batch.known_at is not None else repeat(0),
                batch.part if batch.part is not None else repeat(0),
                lookup(batch.details, batch.detail),
                batch.token if batch.token is not None else repeat(None),
            )
        )
