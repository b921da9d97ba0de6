"""Events as bytes, between processes: what recurs is sent once and then by number."""

from __future__ import annotations

import msgspec

from aftergate.events.interning import Interner
from aftergate.events.wire_rows import ActionRow, ActorRow, AgentRow, Batch, Column, OriginRow, ShapeRow
from aftergate.vocabulary import Action, Actor, Agent, Detail, Event, Kind, Origin, Shape, Tag

MOST_KEPT = 100_000  # texts, users or details that a stream numbers before it begins again


class Packer:
    """One side of a stream of batches. Numbers are given out in the order values first appear."""

    def __init__(self, keep: int = MOST_KEPT) -> None:
        self._most = keep
        self._numbers: dict[object, int] = {}
        self._counts = [0, 0, 0, 0, 0]
        self._keep: list[object] = []  # numbered objects stay alive, so that an identity is never reused
        self._texts: dict[str, int] = {}
        self._users: dict[tuple[str | None, str | None], int] = {}
        self._last: dict[str | None, tuple[str | None, int]] = {}  # by credential: the session it was last seen with, and their number
        self._details: dict[Detail, int] = {}  # by identity: a detail that events share goes over once
        self._encode = msgspec.msgpack.Encoder().encode

    def pack(self, events: list[Event]) -> bytes:
        forget = max(len(self._texts), len(self._users), len(self._details)) > self._most
        if forget:
            self._texts, self._users, self._last, self._details = {}, {}, {}, {}
        users: list[int] = []
        credentials: list[str | None] = []
        sessions: list[str | None] = []
        target, size, known_at, part, detail = _Filled(), _Filled(), _Filled(), _Filled(), _Filled()
        token_at: list[int] = []
        tokens: list[str] = []
        texts: list[str] = []
        details: list[Detail] = []
        times: list[int] = []
        ids: list[str] = []
        shapes: list[Shape] = []
        place = 0
        for e in events:
            times.append(e.time)
            ids.append(e.id)
            shapes.append(e.shape)
            last = self._last.get(e.credential)
            if last is not None and last[0] == e.session:
                users.append(last[1])
            else:
                user = (e.credential, e.session)
                number = self._users.get(user)
                if number is None:
                    number = self._users[user] = len(self._users)
                    credentials.append(e.credential)
                    sessions.append(e.session)
                self._last[e.credential] = (e.session, number)
                users.append(number)
            if e.target is not None:
                number = self._texts.get(e.target)
                if number is None:
                    number = self._texts[e.target] = len(self._texts)
                    texts.append(e.target)
                target.put(place, number)
            if e.size:
                size.put(place, e.size)
            if e.known_at:
                known_at.put(place, e.known_at)
            if e.part:
                part.put(place, e.part)
            if e.detail is not None:
                number = self._details.get(e.detail)
                if number is None:
                    number = self._details[e.detail] = len(self._details)
                    details.append(e.detail)
                detail.put(place, number)
            if e.token is not None:
                token_at.append(place)
                tokens.append(e.token)
            place += 1
        batch = Batch(
            [], [], [], [], [], forget, credentials, sessions, texts, details, times, ids, [], users, target.column(place),
            size.column(place), known_at.column(place), part.column(place), detail.column(place), token_at, tokens,
        )  # fmt: skip
        numbers = self._numbers
        numbered = batch.shape
        for shape in shapes:
            known = numbers.get(shape)
            numbered.append(self._shape(shape, batch) if known is None else known)
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
        self._credentials: list[str | None] = []
        self._sessions: list[str | None] = []
        self._texts: list[str] = []
        self._details: list[Detail] = []
        self._decode = msgspec.msgpack.Decoder(Batch).decode

    def unpack(self, data: bytes | memoryview) -> list[Event]:
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

        if batch.forget:
            self._credentials, self._sessions, self._texts, self._details = [], [], [], []
        credentials, sessions, texts, details, shapes = self._credentials, self._sessions, self._texts, self._details, self._shapes
        credentials.extend(batch.credentials)
        sessions.extend(batch.sessions)
        texts.extend(batch.texts)
        details.extend(batch.details)
        # Here and below `zip` without `strict`: with it the loops would not be loops of C.
        events: list[Event] = []
        for time, name, shape, user in zip(batch.time, batch.id, batch.shape, batch.user):  # noqa: B905
            events.append(Event(time, name, shapes[shape], credentials[user], sessions[user]))
        every = list(range(len(events)))
        at: list[int] = _places(batch.target, every)
        values: list[int] = batch.target.values
        for place, value in zip(at, values):  # noqa: B905
            events[place].target = texts[value]
        at, values = _places(batch.detail, every), batch.detail.values
        for place, value in zip(at, values):  # noqa: B905
            events[place].detail = details[value]
        at, values = _places(batch.size, every), batch.size.values
        for place, value in zip(at, values):  # noqa: B905
            events[place].size = value
        at, values = _places(batch.known_at, every), batch.known_at.values
        for place, value in zip(at, values):  # noqa: B905
            events[place].known_at = value
        at, values = _places(batch.part, every), batch.part.values
        for place, value in zip(at, values):  # noqa: B905
            events[place].part = value
        at, tokens = batch.token_at, batch.token
        for place, token in zip(at, tokens):  # noqa: B905
            events[place].token = token
        return events


class _Filled:
    """A column as it is written down: only the events that have the field."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self.at: list[int] = []

    def put(self, place: int, value: int) -> None:
        self.values.append(value)
        self.at.append(place)

    def column(self, count: int) -> Column:
        return Column(self.values, self.at if len(self.at) < count else None)


def _places(column: Column, every: list[int]) -> list[int]:
    """Which events have the field."""
    return every if column.at is None else column.at
