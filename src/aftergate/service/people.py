"""People: who they are, which groups they are in, which authenticators are theirs, and how they got here."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from msgspec import Struct
from sqlalchemy import Connection, select

from aftergate.audit.records import Actor, Party, Record
from aftergate.service import naming
from aftergate.service.enrolment import Enrolment
from aftergate.service.login import Logins
from aftergate.service.naming import MAX_NAME, PersonProblem, text, texts
from aftergate.service.sessions import PersonSession, Sessions
from aftergate.service.tickets import Tickets
from aftergate.stores import people as store
from aftergate.stores import sessions as session_rows
from aftergate.stores.people import Passkey, Person, folded
from aftergate.stores.tables.base import changes, properties

if TYPE_CHECKING:
    from aftergate.service.core import Core

URL: Final = "url"  # property under which the server writes its address down
FRESH_MS: Final = 300_000  # authenticators are changed only this soon after a login


class Link(Struct, frozen=True):
    """A one-time link, told once."""

    url: str
    expires_ms: int


class People:
    """Everything about people. One database transaction each, audit record included."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.tickets = Tickets(core.pepper)
        self.sessions = Sessions(core)
        self.enrolment = Enrolment(core, self)
        self.logins = Logins(core, self)
        self.rp_id = core.settings.rp_id or urlsplit(core.url).hostname or "localhost"
        self.origins = frozenset({origin_of(core.url)})
        self._key = hmac.digest(core.pepper, b"enrolment link", "sha256")
        self._seen = -1
        self._serving = False  # whether this is the server, which ticks

    def session(self, cookie: str, now_ms: int, *, active: bool = True) -> PersonSession | None:
        """Who is logged in with this cookie. A page that only refreshes itself asks with `active` false, and lets the session run out.

        Raises: StoreUnavailable.
        """
        return self.sessions.find(cookie, now_ms, active=active)

    def tick(self, now_ms: int) -> None:
        """See what other processes changed, and write down what waits.

        Raises: StoreUnavailable.
        """
        with self._core.db.read() as connection:
            version = connection.execute(select(changes.c.version).where(changes.c.topic == store.TOPIC)).scalar_one_or_none() or 0
        if version != self._seen:
            self.sessions.forget()
            self._seen = version
        if not self._serving:
            with self._core.db.write() as connection:
                written = self._core.db.insert(properties).values(name=URL, value=self._core.url)
                connection.execute(written.on_conflict_do_update(index_elements=[properties.c.name], set_={"value": self._core.url}))
            self._serving = True
        self.sessions.tick(now_ms)

    def everybody(self) -> list[Person]:
        with self._core.db.read() as connection:
            return store.everybody(connection)

    def person(self, person_id: str) -> Person:
        """Raises: PersonProblem, if there is nobody of that id."""
        with self._core.db.read() as connection:
            return self._there(connection, person_id)

    def passkeys(self, person_id: str, *, revoked: bool = False) -> list[Passkey]:
        with self._core.db.read() as connection:
            return store.passkeys(connection, person_id, revoked=revoked)

    def add(
        self, person_id: str, *, name: str = "", groups: Iterable[str] = (), aliases: Iterable[str] = (), by: Actor
    ) -> tuple[Person, Link]:
        """A new person, and the link with which they register their first authenticator. One who was removed comes back, without their old authenticators.

        Raises: PersonProblem, StoreUnavailable.
        """
        person_id, name = naming.person_id(person_id), text(name or person_id, "name", MAX_NAME)
        groups, aliases = texts(groups, "group"), texts(aliases, "alias")
        with self._core.db.write() as connection:
            held = store.person(connection, person_id)
            if held is not None and held.removed_ms is None:
                raise PersonProblem(
                    f"there is a person `{person_id}` already", where="id", hint="use `aftergate people groups` or `aftergate people link`"
                )
            if held is not None:
                store.restore(connection, person_id)
                store.rename(connection, person_id, name)
            else:
                self._free(connection, person_id)
                store.add(connection, person_id, name, secrets.token_bytes(32), self._core.clock())
            store.set_groups(connection, person_id, "operator", groups)
            store.set_aliases(connection, person_id, "operator", aliases)
            personal = {"name": name, **({"aliases": ", ".join(sorted(aliases))} if aliases else {})}
            self._tell(connection, "admin.person.added", by, person_id, {"groups": sorted(groups), "source": "operator"}, personal)
            link = self._link(connection, person_id, by)
            made = self._there(connection, person_id)
        self.sessions.forget()
        return made, link

    def change(
        self,
        person_id: str,
        *,
        name: str | None = None,
        groups: Iterable[str] | None = None,
        aliases: Iterable[str] | None = None,
        by: Actor,
    ) -> Person:
        """Set the operator's word on a person's name, groups or aliases; what the issuer says of them stays.

        Raises: PersonProblem, StoreUnavailable.
        """
        with self._core.db.write() as connection:
            self._there(connection, person_id)
            detail: dict[str, Any] = {"source": "operator"}
            personal: dict[str, str] = {}
            if name is not None:
                personal["name"] = text(name, "name", MAX_NAME)
                store.rename(connection, person_id, personal["name"])
            if groups is not None:
                wanted = texts(groups, "group")
                store.set_groups(connection, person_id, "operator", wanted)
                detail["groups"] = sorted(wanted)
            if aliases is not None:
                known = texts(aliases, "alias")
                store.set_aliases(connection, person_id, "operator", known)
                detail["aliases"] = len(known)
                personal["aliases"] = ", ".join(sorted(known))
            self._tell(connection, "admin.person.changed", by, person_id, detail, personal)
            made = self._there(connection, person_id)
        self.sessions.forget()
        return made

    def remove(self, person_id: str, *, by: Actor) -> bool:
        """Shut a person out at once: sessions end, authenticators and links die. False if there was nobody.

        Raises: StoreUnavailable.
        """
        with self._core.db.write() as connection:
            now = self._core.clock()
            keys = store.passkeys(connection, person_id)
            if not store.remove(connection, person_id, now):
                return False
            session_rows.end_of(connection, person_id, now)
            self._tell(connection, "admin.person.removed", by, person_id, {"authenticators": [key.id for key in keys]}, {})
        self.sessions.forget()
        return True

    def link(self, person_id: str, *, by: Actor) -> Link:
        """A new one-time link for a person; their older ones die.

        Raises: PersonProblem, StoreUnavailable.
        """
        with self._core.db.write() as connection:
            self._there(connection, person_id)
            return self._link(connection, person_id, by)

    def rename_passkey(self, person_id: str, passkey_id: str, name: str) -> bool:
        """Raises: PersonProblem, StoreUnavailable."""
        wanted = text(name, "name", MAX_NAME)
        with self._core.db.write() as connection:
            return store.rename_passkey(connection, person_id, passkey_id, wanted)

    def remove_passkey(self, person_id: str, passkey_id: str, *, by: Actor) -> bool:
        """An authenticator that was lost or is no longer wanted: it opens and approves nothing from now on, and the sessions it opened end.

        Raises: StoreUnavailable.
        """
        with self._core.db.write() as connection:
            now = self._core.clock()
            if not store.revoke_passkey(connection, person_id, passkey_id, now):
                return False
            ended = session_rows.end_opened_by(connection, passkey_id, now)
            self._tell(connection, "admin.authenticator.removed", by, person_id, {"authenticator": passkey_id, "sessions_ended": ended}, {})
        self.sessions.forget()
        return True

    def end_session(self, session_id: str, person_id: str, *, by: Actor) -> bool:
        """Raises: StoreUnavailable."""
        with self._core.db.write() as connection:
            done = self.sessions.end(connection, session_id, person_id, by, self._core.clock())
        self.sessions.forget()
        return done

    def digest(self, secret: str) -> bytes:
        """What a link's secret is known by."""
        return hmac.digest(self._key, secret.encode("utf-8", "replace"), "sha256")

    def _link(self, connection: Connection, person_id: str, by: Actor) -> Link:
        now = self._core.clock()
        expires_ms = now + self._core.settings.enrolment_ttl_s * 1000
        secret = secrets.token_urlsafe(32)
        store.end_enrolments(connection, person_id, now)
        store.add_enrolment(connection, self.digest(secret), person_id, now, expires_ms)
        self._tell(connection, "admin.enrolment.created", by, person_id, {"expires": expires_ms // 1000}, {})
        # Behind `#`: browsers send it to nobody, so it is in no log.
        return Link(f"{self._url(connection)}/enrol#{secret}", expires_ms)

    def _url(self, connection: Connection) -> str:
        """Where the server is reached. A command beside it has no address of its own, and takes the one that the server wrote down."""
        if self._serving:
            return self._core.url
        written = connection.execute(select(properties.c.value).where(properties.c.name == URL)).scalar_one_or_none()
        return written or self._core.url

    def _free(self, connection: Connection, person_id: str) -> None:
        """An id differs from every other by more than case: approvals compare people without it."""
        for other in store.everybody(connection, removed=True):
            if folded(other.id) == folded(person_id):
                raise PersonProblem(
                    f"`{person_id}` differs from `{other.id}` only in case", where="id", hint="give another id, or use that one"
                )

    def _there(self, connection: Connection, person_id: str) -> Person:
        held = store.person(connection, person_id)
        if held is None or held.removed_ms is not None:
            raise PersonProblem(f"there is no person `{person_id}`", where="id", hint="`aftergate people list` shows who there is")
        return held

    def _tell(self, connection: Connection, kind: str, by: Actor, person_id: str, detail: dict[str, Any], personal: dict[str, str]) -> None:
        self._core.db.touch(connection, store.TOPIC)
        record = Record(type=kind, actor=by, subject=Party("person", person_id), detail=detail, personal=personal)
        self._core.audit.append(connection, [record])


def origin_of(url: str) -> str:
    """The origin of a page at `url`, as browsers write it."""
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port and parts.port != default else "")
