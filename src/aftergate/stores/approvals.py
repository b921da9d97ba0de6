"""Requests for approval in the database. Every function works inside the caller's transaction, so that what must hold together is written together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, Select, and_, delete, func, insert, or_, select, update

from aftergate.authz.transactions import machine
from aftergate.authz.transactions.machine import State
from aftergate.authz.transactions.objects import Asked, Risk
from aftergate.stores.tables.approvals import approval_challenges, approval_failures, approval_items, approval_votes, approvals, reviews
from aftergate.stores.tables.base import outbox

TOPIC: Final = "approvals"
_state = msgspec.json.Decoder(State)
_asked = msgspec.json.Decoder(Asked)
_risk = msgspec.json.Decoder(Risk)


class About(Struct, frozen=True):
    """Names under which findings count against a request: of its identity, session and credential."""

    identity: tuple[str, ...]
    session: tuple[str, ...] = ()
    credential: tuple[str, ...] = ()


class Callback(Struct, frozen=True):
    """Where the requester wants to be told."""

    endpoint: str
    state: Any = None
    events: tuple[str, ...] = ()


class Approval(Struct, frozen=True):
    """One request, as it is kept."""

    number: int
    id: str
    state: State
    base: bytes  # canonical bytes of the common object
    asked: Asked
    subject: str
    about: About
    risk: Risk
    reason: str
    client: dict[str, Any]
    callback: Callback | None
    body: bytes
    created_ms: int

    @property
    def object(self) -> dict[str, Any]:
        held: dict[str, Any] = msgspec.json.decode(self.base)
        return held


class New(Struct, frozen=True):
    """What a new request brings beside its state."""

    id: str
    base: bytes
    asked: Asked
    subject: str
    about: About
    risk: Risk
    reason: str
    client: dict[str, Any]
    callback: Callback | None
    idempotency: bytes | None
    body: bytes


_about = msgspec.json.Decoder(About)
_callback = msgspec.json.Decoder(Callback)


def text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def add(connection: Connection, new: New, state: State, items: Sequence[tuple[str, bytes]], at_ms: int) -> int:
    """Keep a request with its items (id, digest); gives its number."""
    done = connection.execute(
        insert(approvals).values(
            id=new.id,
            status=machine.status(state),
            state=text(state),
            object=new.base,
            asked=text(new.asked),
            subject=new.subject,
            about=text(new.about),
            risk=text(new.risk),
            reason=new.reason,
            client=text(new.client),
            callback=None if new.callback is None else text(new.callback),
            idempotency=new.idempotency,
            body=new.body,
            created_ms=at_ms,
            decide_by_ms=state.terms.decide_by_ms,
            approved_ms=state.approved_ms or None,
            closed_ms=state.closed_ms or None,
        )
    )
    key = done.inserted_primary_key
    assert key is not None
    number = int(key[0])
    rows = [{"id": id_, "approval": number, "place": place, "digest": digest} for place, (id_, digest) in enumerate(items)]
    connection.execute(insert(approval_items), rows)
    return number


def _one(connection: Connection, query: Select[Any], *, lock: bool) -> Approval | None:
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _approval(row)


def _approval(row: Row[Any]) -> Approval:
    return Approval(
        row.number,
        row.id,
        _state.decode(row.state),
        row.object,
        _asked.decode(row.asked),
        row.subject,
        _about.decode(row.about),
        _risk.decode(row.risk),
        row.reason,
        msgspec.json.decode(row.client),
        None if row.callback is None else _callback.decode(row.callback),
        row.body,
        row.created_ms,
    )


def by_id(connection: Connection, id_: str, *, lock: bool = False) -> Approval | None:
    """The request with this handle. `lock` holds it until the transaction ends, so that steps follow one another."""
    return _one(connection, select(approvals).where(approvals.c.id == id_), lock=lock)


def by_number(connection: Connection, number: int, *, lock: bool = False) -> Approval | None:
    return _one(connection, select(approvals).where(approvals.c.number == number), lock=lock)


def by_idempotency(connection: Connection, digest: bytes) -> Approval | None:
    return _one(connection, select(approvals).where(approvals.c.idempotency == digest), lock=False)


def by_item(connection: Connection, item_id: str) -> tuple[Approval, int, bytes] | None:
    """The request that an approval id is of, with the item's place and digest."""
    item = connection.execute(select(approval_items).where(approval_items.c.id == item_id)).first()
    if item is None:
        return None
    found = by_number(connection, item.approval)
    assert found is not None  # a foreign key says so
    return found, item.place, item.digest


def items_of(connection: Connection, number: int) -> list[Row[Any]]:
    """The items in order: id, place, digest, consumed_ms, evaluation."""
    query = select(approval_items).where(approval_items.c.approval == number).order_by(approval_items.c.place)
    return list(connection.execute(query))


def save(connection: Connection, number: int, state: State) -> None:
    """Keep the state a step gave. The caller holds the row locked."""
    connection.execute(
        update(approvals)
        .where(approvals.c.number == number)
        .values(state=text(state), status=machine.status(state), approved_ms=state.approved_ms or None, closed_ms=state.closed_ms or None)
    )


def take_item(connection: Connection, number: int, place: int, evaluation: str, at_ms: int) -> bool:
    """Mark an item as used; of several who try at the same moment exactly one is told yes, whatever else went wrong."""
    done = connection.execute(
        update(approval_items)
        .where(and_(approval_items.c.approval == number, approval_items.c.place == place, approval_items.c.consumed_ms.is_(None)))
        .values(consumed_ms=at_ms, evaluation=evaluation)
    )
    return done.rowcount == 1


def waiting(connection: Connection, limit: int = 200) -> list[Approval]:
    """Requests that wait for people, oldest first."""
    query = select(approvals).where(approvals.c.status == "pending").order_by(approvals.c.number).limit(limit)
    return [_approval(row) for row in connection.execute(query)]


def overdue(connection: Connection, at_ms: int, limit: int = 100) -> list[int]:
    """Numbers of requests whose time to be decided is over."""
    query = select(approvals.c.number).where(and_(approvals.c.status == "pending", approvals.c.decide_by_ms <= at_ms)).limit(limit)
    return [row.number for row in connection.execute(query)]


def lately(connection: Connection, subject: str, since_ms: int, limit: int = 20) -> list[Approval]:
    """What a subject asked for since then, newest first."""
    query = (
        select(approvals)
        .where(and_(approvals.c.subject == subject, approvals.c.created_ms >= since_ms))
        .order_by(approvals.c.number.desc())
        .limit(limit)
    )
    return [_approval(row) for row in connection.execute(query)]


def newest(connection: Connection, limit: int = 50) -> list[Approval]:
    """Requests of any state, newest first."""
    return [_approval(row) for row in connection.execute(select(approvals).order_by(approvals.c.number.desc()).limit(limit))]


def add_vote(connection: Connection, number: int, person: str, verdict: str, reason: str, at_ms: int, credential: str, risk: Risk) -> None:
    """A person's vote, in place of an earlier one that counts no more; the audit log has both."""
    connection.execute(delete(approval_votes).where(and_(approval_votes.c.approval == number, approval_votes.c.person == person)))
    connection.execute(
        insert(approval_votes).values(
            approval=number, person=person, verdict=verdict, reason=reason, at_ms=at_ms, credential=credential, risk=text(risk)
        )
    )


def votes_of(connection: Connection, number: int) -> list[Row[Any]]:
    return list(connection.execute(select(approval_votes).where(approval_votes.c.approval == number).order_by(approval_votes.c.at_ms)))


class Challenge(Struct, frozen=True):
    """What one person was asked to sign: for each request its number and the canonical bytes of that person's object."""

    id: str
    person: str
    session: str
    objects: tuple[tuple[int, bytes], ...]
    gathered: bytes | None
    expires_ms: int


_objects = msgspec.json.Decoder(tuple[tuple[int, bytes], ...])


def add_challenge(connection: Connection, challenge: Challenge, at_ms: int) -> None:
    connection.execute(
        insert(approval_challenges).values(
            id=challenge.id,
            person=challenge.person,
            session=challenge.session,
            objects=text(challenge.objects),
            gathered=challenge.gathered,
            created_ms=at_ms,
            expires_ms=challenge.expires_ms,
        )
    )


def take_challenge(connection: Connection, id_: str, at_ms: int) -> Challenge | None:
    """A challenge, now used; None if there is none of this id or it was used before."""
    done = connection.execute(
        update(approval_challenges)
        .where(and_(approval_challenges.c.id == id_, approval_challenges.c.used_ms.is_(None)))
        .values(used_ms=at_ms)
    )
    if done.rowcount != 1:
        return None
    row = connection.execute(select(approval_challenges).where(approval_challenges.c.id == id_)).one()
    return Challenge(row.id, row.person, row.session, _objects.decode(row.objects), row.gathered, row.expires_ms)


def add_failure(connection: Connection, person: str, at_ms: int) -> None:
    connection.execute(insert(approval_failures).values(person=person, at_ms=at_ms))


def failures_since(connection: Connection, person: str, since_ms: int) -> int:
    """Failed tries of a person, over all requests."""
    query = (
        select(func.count())
        .select_from(approval_failures)
        .where(and_(approval_failures.c.person == person, approval_failures.c.at_ms > since_ms))
    )
    return int(connection.execute(query).scalar_one())


def forget_failures(connection: Connection, person: str) -> None:
    """A try that held starts the count anew."""
    connection.execute(delete(approval_failures).where(approval_failures.c.person == person))


def open_review(connection: Connection, id_: str, number: int, person: str, reason: str, at_ms: int) -> None:
    connection.execute(insert(reviews).values(id=id_, approval=number, opened_ms=at_ms, person=person, reason=reason))


def review(connection: Connection, id_: str) -> Row[Any] | None:
    return connection.execute(select(reviews).where(reviews.c.id == id_).with_for_update()).first()


def review_list(connection: Connection, *, open_only: bool, limit: int = 200) -> list[Row[Any]]:
    """Reviews, newest first: id, request, opened_ms, person, reason, closed_ms, closed_by, note."""
    query = (
        select(reviews, approvals.c.id.label("request"))
        .join(approvals, approvals.c.number == reviews.c.approval)
        .order_by(reviews.c.opened_ms.desc())
        .limit(limit)
    )
    return list(connection.execute(query.where(reviews.c.closed_ms.is_(None)) if open_only else query))


def close_review(connection: Connection, id_: str, by: str, note: str, at_ms: int) -> bool:
    """Close an open one; false if it is closed already."""
    done = connection.execute(
        update(reviews).where(and_(reviews.c.id == id_, reviews.c.closed_ms.is_(None))).values(closed_ms=at_ms, closed_by=by, note=note)
    )
    return done.rowcount == 1


def tell(connection: Connection, kind: str, bodies: Iterable[Any], at_ms: int) -> None:
    """Put messages into the outbox; they go out once this transaction is committed."""
    rows = [{"kind": kind, "body": text(body), "created_ms": at_ms, "next_ms": at_ms, "attempts": 0, "failed": False} for body in bodies]
    if rows:
        connection.execute(insert(outbox), rows)


def due_messages(connection: Connection, kind: str, at_ms: int, limit: int = 20) -> list[Row[Any]]:
    """Messages to send now: number, body, attempts."""
    query = (
        select(outbox)
        .where(and_(outbox.c.kind == kind, outbox.c.sent_ms.is_(None), outbox.c.failed.is_(False), outbox.c.next_ms <= at_ms))
        .order_by(outbox.c.number)
        .limit(limit)
    )
    return list(connection.execute(query))


def claim_message(connection: Connection, number: int, attempts: int, next_ms: int) -> bool:
    """Take a message for one try; of several processes one is told yes. If this one dies, the next try is at `next_ms`."""
    done = connection.execute(
        update(outbox)
        .where(and_(outbox.c.number == number, outbox.c.attempts == attempts, outbox.c.sent_ms.is_(None), outbox.c.failed.is_(False)))
        .values(attempts=attempts + 1, next_ms=next_ms)
    )
    return done.rowcount == 1


def message_done(connection: Connection, number: int, *, sent_ms: int | None, failed: bool, problem: str | None) -> None:
    connection.execute(update(outbox).where(outbox.c.number == number).values(sent_ms=sent_ms, failed=failed, problem=problem))


def notes_for(connection: Connection, kind: str, since_ms: int, limit: int = 200) -> list[Row[Any]]:
    """Messages of a kind since then, newest first, sent or not."""
    query = select(outbox).where(and_(outbox.c.kind == kind, outbox.c.created_ms >= since_ms)).order_by(outbox.c.number.desc()).limit(limit)
    return list(connection.execute(query))


def forget(connection: Connection, before_ms: int) -> int:
    """Drop challenges and failures that can matter no more, and closed requests with everything of them; gives how many requests went."""
    connection.execute(delete(approval_challenges).where(approval_challenges.c.expires_ms < before_ms))
    connection.execute(delete(approval_failures).where(approval_failures.c.at_ms < before_ms))
    open_ = select(reviews.c.approval).where(reviews.c.closed_ms.is_(None))
    old = and_(
        approvals.c.created_ms < before_ms,
        or_(approvals.c.status != "pending", approvals.c.decide_by_ms < before_ms),
        approvals.c.number.not_in(open_),
    )
    numbers = [row.number for row in connection.execute(select(approvals.c.number).where(old).limit(500))]
    if not numbers:
        return 0
    for table in (approval_items, approval_votes, reviews):
        connection.execute(delete(table).where(table.c.approval.in_(numbers)))
    return connection.execute(delete(approvals).where(approvals.c.number.in_(numbers))).rowcount
