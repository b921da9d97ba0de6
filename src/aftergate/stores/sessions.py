"""Persons' sessions, as rows. A session is known by a keyed hash of its cookie."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from aftergate.stores.tables.people import person_sessions


class Session(Struct, frozen=True):
    """One session as it is stored. `auth_ms` is when the person last proved who they are, at the issuer or with the passkey."""

    id: str
    person: str
    method: str  # passkey | oidc
    authenticator: str
    acr: str
    amr: tuple[str, ...]
    auth_ms: int
    created_ms: int
    seen_ms: int
    ended_ms: int | None = None


def add(connection: Connection, digest: bytes, made: Session) -> None:
    values = {name: getattr(made, name) for name in Session.__struct_fields__ if name not in {"amr", "ended_ms"}}
    connection.execute(insert(person_sessions).values(digest=digest, amr=" ".join(made.amr), **values))


def find(connection: Connection, digest: bytes) -> Session | None:
    row = connection.execute(select(person_sessions).where(person_sessions.c.digest == digest)).first()
    return None if row is None else _session(row)


def seen(connection: Connection, digest: bytes, at_ms: int) -> None:
    """The person did something; another process may have seen something later, which counts."""
    later = and_(person_sessions.c.digest == digest, person_sessions.c.seen_ms < at_ms)
    connection.execute(update(person_sessions).where(later).values(seen_ms=at_ms))


def end(connection: Connection, session_id: str, at_ms: int) -> bool:
    """End one; false if it was over already."""
    return bool(connection.execute(_open(person_sessions.c.id == session_id).values(ended_ms=at_ms)).rowcount)


def end_of(connection: Connection, person_id: str, at_ms: int) -> int:
    """End all of a person's."""
    return connection.execute(_open(person_sessions.c.person == person_id).values(ended_ms=at_ms)).rowcount


def end_opened_by(connection: Connection, authenticator: str, at_ms: int) -> int:
    """End those that an authenticator opened."""
    return connection.execute(_open(person_sessions.c.authenticator == authenticator).values(ended_ms=at_ms)).rowcount


def end_idle(connection: Connection, seen_before_ms: int, created_before_ms: int, at_ms: int) -> int:
    """End what ran out."""
    late = or_(person_sessions.c.seen_ms < seen_before_ms, person_sessions.c.created_ms < created_before_ms)
    return connection.execute(_open(late).values(ended_ms=at_ms)).rowcount


def forget(connection: Connection, ended_before_ms: int) -> int:
    """Drop sessions that ended long ago."""
    return connection.execute(delete(person_sessions).where(person_sessions.c.ended_ms < ended_before_ms)).rowcount


def _open(which: Any) -> Any:
    return update(person_sessions).where(which, person_sessions.c.ended_ms.is_(None))


def _session(row: Any) -> Session:
    return Session(
        row.id,
        row.person,
        row.method,
        row.authenticator or "",
        row.acr,
        tuple(row.amr.split()),
        row.auth_ms,
        row.created_ms,
        row.seen_ms,
        row.ended_ms,
    )
