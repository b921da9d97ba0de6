"""Persons, their names and authenticators, as rows: functions over a connection, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

from msgspec import Struct
from sqlalchemy import Connection, and_, delete, insert, select, update

from aftergate.authz.transactions.webauthn import Authenticator
from aftergate.stores.tables.people import (
    authenticators,
    enrolments,
    person_aliases,
    person_groups,
    person_logins,
    persons,
)

TOPIC: Final = "people"
Source = Literal["operator", "issuer"]


class Person(Struct, frozen=True):
    """One human. `aliases` are all other subject ids that are the same human."""

    id: str
    name: str
    user_handle: bytes
    groups: frozenset[str]
    aliases: frozenset[str]
    created_ms: int
    removed_ms: int | None = None
    given_aliases: frozenset[str] = frozenset()  # the operator's word among them

    @property
    def names(self) -> frozenset[str]:
        """Every id under which this human may ask for something."""
        return self.aliases | {self.id}


class Passkey(Struct, frozen=True):
    """A registered authenticator as its owner sees it."""

    id: str
    credential_id: bytes
    person: str
    public_key: bytes
    sign_count: int
    backup_eligible: bool
    backed_up: bool
    aaguid: str
    transports: tuple[str, ...]
    attestation: str
    name: str
    added_ms: int
    last_used_ms: int | None = None
    revoked_ms: int | None = None

    def held(self, user_handle: bytes) -> Authenticator:
        """The same, as the WebAuthn checks take it."""
        return Authenticator(
            self.credential_id, self.person, self.public_key, self.sign_count, self.backup_eligible, self.aaguid, user_handle,
            revoked=self.revoked_ms is not None,
        )  # fmt: skip


def folded(name: str) -> str:
    """How names are compared: one human may be written in several cases."""
    return name.strip().casefold()


def person(connection: Connection, person_id: str) -> Person | None:
    """One person with groups and aliases, removed or not."""
    row = connection.execute(select(persons).where(persons.c.id == person_id)).first()
    return None if row is None else _people(connection, [row])[0]


def everybody(connection: Connection, *, removed: bool = False) -> list[Person]:
    """All persons by id; with `removed`, those too who were."""
    query = select(persons).order_by(persons.c.id)
    if not removed:
        query = query.where(persons.c.removed_ms.is_(None))
    return _people(connection, list(connection.execute(query)))


def members(connection: Connection, groups: Iterable[str]) -> list[Person]:
    """Everybody who is in any of these groups."""
    wanted = sorted(set(groups))
    if not wanted:
        return []
    query = (
        select(persons).distinct().join(person_groups, person_groups.c.person == persons.c.id)
        .where(persons.c.removed_ms.is_(None), person_groups.c.name.in_(wanted)).order_by(persons.c.id)
    )  # fmt: skip
    return _people(connection, list(connection.execute(query)))


def add(connection: Connection, person_id: str, name: str, user_handle: bytes, at_ms: int) -> None:
    connection.execute(insert(persons).values(id=person_id, name=name, user_handle=user_handle, created_ms=at_ms))


def rename(connection: Connection, person_id: str, name: str) -> None:
    connection.execute(update(persons).where(persons.c.id == person_id).values(name=name))


def set_groups(connection: Connection, person_id: str, source: Source, groups: Iterable[str]) -> None:
    """Give a person exactly these groups of this source; the other source's stay."""
    _set(connection, person_groups, "name", person_id, source, groups)


def set_aliases(connection: Connection, person_id: str, source: Source, aliases: Iterable[str]) -> None:
    """Give a person exactly these aliases of this source; the other source's stay."""
    _set(connection, person_aliases, "alias", person_id, source, aliases)


def remove(connection: Connection, person_id: str, at_ms: int) -> bool:
    """Mark a person as removed, without groups, and with all authenticators and links dead; false if there is no such person.

    What stays is what keeps them out: the id, the operator's aliases, and the issuer's `sub`.
    """
    there = and_(persons.c.id == person_id, persons.c.removed_ms.is_(None))
    if not connection.execute(update(persons).where(there).values(removed_ms=at_ms, name=person_id)).rowcount:
        return False
    set_aliases(connection, person_id, "issuer", ())
    connection.execute(delete(person_groups).where(person_groups.c.person == person_id))
    connection.execute(
        update(authenticators).where(authenticators.c.person == person_id, authenticators.c.revoked_ms.is_(None)).values(revoked_ms=at_ms)
    )
    end_enrolments(connection, person_id, at_ms)
    return True


def restore(connection: Connection, person_id: str) -> None:
    """Take a removed person back; their authenticators stay revoked."""
    connection.execute(update(persons).where(persons.c.id == person_id).values(removed_ms=None))


def login_of(connection: Connection, issuer: str, subject: str) -> str | None:
    """The person whom an issuer calls `subject`."""
    query = select(person_logins.c.person).where(person_logins.c.issuer == issuer, person_logins.c.subject == subject)
    return connection.execute(query).scalar_one_or_none()


def has_login(connection: Connection, issuer: str, person_id: str) -> bool:
    query = select(person_logins.c.subject).where(person_logins.c.issuer == issuer, person_logins.c.person == person_id).limit(1)
    return connection.execute(query).first() is not None


def add_login(connection: Connection, issuer: str, subject: str, person_id: str) -> None:
    connection.execute(insert(person_logins).values(issuer=issuer, subject=subject, person=person_id))


def passkey(connection: Connection, credential_id: bytes) -> Passkey | None:
    """The authenticator with this credential id, revoked or not."""
    row = connection.execute(select(authenticators).where(authenticators.c.credential_id == credential_id)).first()
    return None if row is None else _passkey(row)


def passkeys(connection: Connection, person_id: str, *, revoked: bool = False) -> list[Passkey]:
    """A person's authenticators, oldest first."""
    query = select(authenticators).where(authenticators.c.person == person_id).order_by(authenticators.c.added_ms, authenticators.c.id)
    if not revoked:
        query = query.where(authenticators.c.revoked_ms.is_(None))
    return [_passkey(row) for row in connection.execute(query)]


def add_passkey(connection: Connection, made: Passkey) -> None:
    values = {name: getattr(made, name) for name in Passkey.__struct_fields__ if name not in {"transports", "last_used_ms", "revoked_ms"}}
    connection.execute(insert(authenticators).values(**values, transports=" ".join(made.transports)[:200]))


def rename_passkey(connection: Connection, person_id: str, passkey_id: str, name: str) -> bool:
    mine = and_(authenticators.c.id == passkey_id, authenticators.c.person == person_id, authenticators.c.revoked_ms.is_(None))
    return bool(connection.execute(update(authenticators).where(mine).values(name=name)).rowcount)


def revoke_passkey(connection: Connection, person_id: str, passkey_id: str, at_ms: int) -> bool:
    mine = and_(authenticators.c.id == passkey_id, authenticators.c.person == person_id, authenticators.c.revoked_ms.is_(None))
    return bool(connection.execute(update(authenticators).where(mine).values(revoked_ms=at_ms)).rowcount)


def passkey_used(connection: Connection, credential_id: bytes, *, before: int, now: int, backed_up: bool, at_ms: int) -> bool:
    """Write down a use: the counter goes from `before` to `now`, or, if another assertion was quicker, nothing happens and the answer is false.

    Without this two assertions with one counter, checked at the same time, would both hold (WebAuthn Level 3, section 7.2, step 22).
    """
    same = and_(
        authenticators.c.credential_id == credential_id, authenticators.c.sign_count == before, authenticators.c.revoked_ms.is_(None)
    )
    done = connection.execute(update(authenticators).where(same).values(sign_count=now, backed_up=backed_up, last_used_ms=at_ms))
    return bool(done.rowcount)


def add_enrolment(connection: Connection, digest: bytes, person_id: str, at_ms: int, expires_ms: int) -> None:
    connection.execute(insert(enrolments).values(digest=digest, person=person_id, created_ms=at_ms, expires_ms=expires_ms))


def enrolment(connection: Connection, digest: bytes, now_ms: int) -> str | None:
    """The person a link is for, if it can be used now."""
    query = select(enrolments.c.person).where(
        enrolments.c.digest == digest, enrolments.c.used_ms.is_(None), enrolments.c.expires_ms > now_ms
    )
    return connection.execute(query).scalar_one_or_none()


def use_enrolment(connection: Connection, digest: bytes, now_ms: int) -> bool:
    """Use a link up; of two at once one is told yes."""
    usable = and_(enrolments.c.digest == digest, enrolments.c.used_ms.is_(None), enrolments.c.expires_ms > now_ms)
    return bool(connection.execute(update(enrolments).where(usable).values(used_ms=now_ms)).rowcount)


def end_enrolments(connection: Connection, person_id: str, at_ms: int) -> None:
    """Kill a person's unused links."""
    connection.execute(update(enrolments).where(enrolments.c.person == person_id, enrolments.c.used_ms.is_(None)).values(used_ms=at_ms))


def _set(connection: Connection, table: Any, column: str, person_id: str, source: Source, values: Iterable[str]) -> None:
    connection.execute(delete(table).where(table.c.person == person_id, table.c.source == source))
    rows = [{"person": person_id, column: value, "source": source} for value in sorted(set(values))]
    if rows:
        connection.execute(insert(table), rows)


def _people(connection: Connection, rows: list[Any]) -> list[Person]:
    ids = [row.id for row in rows]
    groups: dict[str, set[str]] = {}
    aliases: dict[str, set[str]] = {}
    given: dict[str, set[str]] = {}
    for start in range(0, len(ids), 500):  # a statement takes a bounded number of parameters
        some = ids[start : start + 500]
        for row in connection.execute(select(person_groups).where(person_groups.c.person.in_(some))):
            groups.setdefault(row.person, set()).add(row.name)
        for row in connection.execute(select(person_aliases).where(person_aliases.c.person.in_(some))):
            aliases.setdefault(row.person, set()).add(row.alias)
            if row.source == "operator":
                given.setdefault(row.person, set()).add(row.alias)
    return [
        Person(
            row.id, row.name, bytes(row.user_handle), frozenset(groups.get(row.id, ())), frozenset(aliases.get(row.id, ())),
            row.created_ms, row.removed_ms, frozenset(given.get(row.id, ())),
        )
        for row in rows
    ]  # fmt: skip


def _passkey(row: Any) -> Passkey:
    return Passkey(
        row.id, bytes(row.credential_id), row.person, bytes(row.public_key), row.sign_count, row.backup_eligible, row.backed_up, row.aaguid,
        tuple(row.transports.split()), row.attestation, row.name, row.added_ms, row.last_used_ms, row.revoked_ms,
    )  # fmt: skip
