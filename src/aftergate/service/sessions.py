"""Persons' sessions: opened by a login, remembered in memory, over after idleness, a longest time, or a word from anybody entitled."""

from __future__ import annotations

import hmac
import secrets
import threading
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from aftergate.audit.records import Actor, Party, Record
from aftergate.stores import people as store
from aftergate.stores import sessions as rows
from aftergate.stores.people import Person
from aftergate.stores.sessions import Session

if TYPE_CHECKING:
    from aftergate.service.core import Core

SCOPES: Final = frozenset({"approve"})
WRITE_MS: Final = (
    5_000  # how often activity is written down: another process may think a session idle by this much too early, never too late
)
SWEEP_MS: Final = 60_000
LONGEST_COOKIE: Final = 100


class PersonSession(Struct, frozen=True):
    """A logged-in person, as far as requests need it. `id` is the person's, `session` the session's."""

    id: str
    name: str
    groups: frozenset[str]
    aliases: frozenset[str]
    session: str
    method: str
    authenticator: str
    acr: str
    amr: tuple[str, ...]
    auth_ms: int
    created_ms: int
    scopes: frozenset[str] = SCOPES


class Login(Struct, frozen=True):
    """How a person proved who they are. `acr` and `amr` are as OpenID Connect has them (RFC 8176 for `amr`)."""

    method: str  # passkey | oidc
    auth_ms: int
    acr: str = ""
    amr: tuple[str, ...] = ()
    authenticator: str = ""


class _Live:
    __slots__ = ("person", "row", "seen_ms", "written_ms")

    def __init__(self, row: Session, person: Person) -> None:
        self.row = row
        self.person = person
        self.seen_ms = row.seen_ms
        self.written_ms = row.seen_ms


class Sessions:
    """The open ones of this process, by keyed hash of the cookie; the database is asked for any other."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._idle_ms = core.settings.session_idle_s * 1000
        self._max_ms = core.settings.session_max_s * 1000
        self._key = hmac.digest(core.pepper, b"person session", "sha256")
        self._live: dict[bytes, _Live] = {}
        self._turn = 0  # rises whenever what was read before may be old
        self._lock = threading.Lock()
        self._swept_ms = 0

    def find(self, cookie: str, now_ms: int, *, active: bool = True) -> PersonSession | None:
        """The session that a cookie stands for, if it is open. Unless `active`, looking does not count as the person's doing.

        Raises: StoreUnavailable.
        """
        if not cookie or len(cookie) > LONGEST_COOKIE:
            return None
        digest = self._digest(cookie)
        with self._lock:
            live, turn = self._live.get(digest), self._turn
        if live is None or self._over(live, now_ms):
            # Not here, or idle as far as this process saw: another may know better.
            live = self._read(digest, turn)
            if live is None or self._over(live, now_ms):
                return None
        if active and live.seen_ms < now_ms:
            live.seen_ms = now_ms
        row, person = live.row, live.person
        return PersonSession(
            person.id,
            person.name,
            person.groups,
            person.aliases,
            row.id,
            row.method,
            row.authenticator,
            row.acr,
            row.amr,
            row.auth_ms,
            row.created_ms,
        )

    def open(self, connection: Connection, person: Person, login: Login, now_ms: int, *, instead_of: str = "") -> tuple[str, Session]:
        """A new session and its cookie, which is told this once. The session that the browser had before ends: an id never outlives a login."""
        cookie = secrets.token_urlsafe(32)
        made = Session(
            "ps-" + secrets.token_hex(12), person.id, login.method, login.authenticator, login.acr, login.amr, login.auth_ms, now_ms, now_ms
        )  # fmt: skip
        rows.add(connection, self._digest(cookie), made)
        if instead_of:
            old = rows.find(connection, self._digest(instead_of)) if len(instead_of) <= LONGEST_COOKIE else None
            if old is not None and rows.end(connection, old.id, now_ms):
                self._core.db.touch(connection, store.TOPIC)
        detail = {"session": made.id, "method": login.method, "acr": login.acr, "amr": list(login.amr), "auth_time": login.auth_ms // 1000}
        if login.authenticator:
            detail["authenticator"] = login.authenticator
        self._core.audit.append(connection, [Record(type="admin.login", actor=Actor("person", person.id), detail=detail)])
        return cookie, made

    def end(self, connection: Connection, session_id: str, person_id: str, by: Actor, now_ms: int) -> bool:
        """End one session, on somebody's word; false if it was over."""
        if not rows.end(connection, session_id, now_ms):
            return False
        self._core.db.touch(connection, store.TOPIC)
        record = Record(type="admin.logout", actor=by, subject=Party("person", person_id), detail={"session": session_id})
        self._core.audit.append(connection, [record])
        return True

    def forget(self) -> None:
        """Read everything again: persons, groups or sessions changed."""
        with self._lock:
            self._turn += 1
            unwritten = [(digest, live.seen_ms) for digest, live in self._live.items() if live.seen_ms > live.written_ms]
            self._live.clear()
        if unwritten:
            with self._core.db.write() as connection:
                for digest, seen_ms in unwritten:
                    rows.seen(connection, digest, seen_ms)

    def tick(self, now_ms: int) -> None:
        """Write activity down, and end what ran out.

        Raises: StoreUnavailable.
        """
        with self._lock:
            late = [digest for digest, live in self._live.items() if self._over(live, now_ms)]
            for digest in late:
                del self._live[digest]
            due = [(digest, live, live.seen_ms) for digest, live in self._live.items() if live.seen_ms - live.written_ms >= WRITE_MS]
        if due:
            with self._core.db.write() as connection:
                for digest, _, seen_ms in due:
                    rows.seen(connection, digest, seen_ms)
            for _, live, seen_ms in due:
                live.written_ms = seen_ms
        if now_ms - self._swept_ms >= SWEEP_MS:
            with self._core.db.write() as connection:
                rows.end_idle(connection, now_ms - self._idle_ms - 2 * WRITE_MS, now_ms - self._max_ms, now_ms)
                rows.forget(connection, now_ms - self._core.settings.keep_sessions_days * 86_400_000)
            self._swept_ms = now_ms

    def _read(self, digest: bytes, turn: int) -> _Live | None:
        with self._core.db.read() as connection:
            row = rows.find(connection, digest)
            if row is None or row.ended_ms is not None:
                return None
            person = store.person(connection, row.person)
        if person is None or person.removed_ms is not None:
            return None
        with self._lock:
            known = self._live.get(digest)
            if known is not None and known.seen_ms > row.seen_ms:
                row = replace(row, seen_ms=known.seen_ms)
            live = _Live(row, person)
            if turn == self._turn:  # else it may be older than the change that emptied the memory: good for this request only
                self._live[digest] = live
        return live

    def _over(self, live: _Live, now_ms: int) -> bool:
        return now_ms - live.seen_ms >= self._idle_ms or now_ms - live.row.created_ms >= self._max_ms

    def _digest(self, cookie: str) -> bytes:
        return hmac.digest(self._key, cookie.encode("utf-8", "replace"), "sha256")
