"""Events as bytes, between processes: what recurs is sent once and then by number."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from aftergate.events.interning import Interner
from aftergate.events.wire_rows import ActionRow, ActorRow, AgentRow, Batch, OriginRow, ShapeRow
from aftergate.vocabulary import Action, Actor, Agent, Detail, Event, Kind, Origin, Shape, Tag

T = TypeVar("T")


class Packer:
    """One side of a stream of batches. Numbers are given out in the order values first appear."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self._counts = [0, 0, 0, 0, 0]
        self._keep: list[object] = []  # numbered objects stay alive, so that an identity is never reused
        self._encode = msgspec.msgpack.Encoder().encode

    def pack(self, events: list[Event]) -> bytes:
        batch = Batch([], [], [], [], [], [], [], [], [None], None, None, None, None, None, None, [None], None, None)
        numbers = self._numbers
        shapes = batch.shape
        for e in events:
            shape = e.shape
            number = numbers.get(shape)
            shapes.append(self._shape(shape, batch) if number is None else number)
        batch.time = [e.time for e in events]
        batch.id = [e.id for e in events]
        texts: dict[str | None, int] = {None: 0}
        batch.credential = _numbered([e.credential for e in events], texts)
        batch.session = _numbered([e.session for e in events], texts)
        batch.target = _numbered([e.target for e in events], texts)
        batch.texts = list(texts)
        details: dict[Detail | None, int] = {None: 0}  # by identity: a detail that events share goes over once
        batch.detail = _numbered([e.detail for e in events], details)
        batch.details = list(details)
        batch.size = _told([e.size for e in events])
        batch.known_at = _told([e.known_at for e in events])
        batch.part = _told([e.part for e in events])
        tokens = [e.token for e in events]
        if any(token is not None for token in tokens):
            batch.token = tokens
        return self._encode(batch)

    def _number(self, kind: int, value: object) -> int:
        number = self._numbers[value] = self._counts[kind]
        self._counts[kind] += 1
        self._keep.append(value)
        return number

    def _shape(self, shape: Shape, batch: Batch) -> int:
        numbers = self._numbers
        action = numbers.get(shape.action)
        if action is None:
            action = self._number(0, shape.action)
            a = shape.action
            batch.actions.append(ActionRow(a.source, a.name, a.kind.value, a.service, a.klass, tuple(sorted(t.value for t in a.tags))))
        actor = numbers.get(shape.actor)
        if actor is None:
            actor = self._number(1, shape.actor)
            who = shape.actor
            batch.actors.append(ActorRow(who.id, who.names, who.kind, who.account, who.display, who.role, who.first_party))
        origin = numbers.get(shape.origin)
        if origin is None:
            origin = self._number(2, shape.origin)
            o = shape.origin
            batch.origins.append(OriginRow(o.ip, o.net, o.asn, o.asn_name, o.network, o.provider, o.country, o.trustworthy, o.basis))
        agent = numbers.get(shape.agent)
        if agent is None:
            agent = self._number(3, shape.agent)
            g = shape.agent
            batch.agents.append(AgentRow(g.raw, g.family, g.kind, g.os, g.version))
        batch.shapes.append(
            ShapeRow(
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
        self._decode = msgspec.msgpack.Decoder(Batch).decode

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

        count = len(batch.time)
        none: list[int] = [0] * count
        shapes, texts, details = self._shapes, batch.texts, batch.details
        return [
            Event(time, name, shapes[shape], texts[credential], texts[session], texts[target], size, known_at, part, details[detail], token)
            for time, name, shape, credential, session, target, size, known_at, part, detail, token in zip(
                batch.time,
                batch.id,
                batch.shape,
                batch.credential or none,
                batch.session or none,
                batch.target or none,
                batch.size or none,
                batch.known_at or none,
                batch.part or none,
                batch.detail or none,
                batch.token or [None] * count,
                strict=True,
            )
        ]


def _numbered(values: list[T], numbers: dict[T, int]) -> list[int] | None:
    """The column of a field whose values are sent once and then by number; None, if every event has number 0, which is none."""
    column: list[int] = []
    some = False
    for value in values:
        number = numbers.get(value)
        if number is None:
            number = numbers[value] = len(numbers)
        if number:
            some = True
        column.append(number)
    return column if some else None


def _told(counts: list[int]) -> list[int] | None:
    return counts if any(counts) else None
