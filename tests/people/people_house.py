"""People with a database, a clock moved by hand, and a log that seals what it is given; no server."""

from __future__ import annotations

import secrets
from typing import Any

from aftergate.audit.records import Actor, Record, seal
from aftergate.authz.transactions.canonical import unb64url
from aftergate.authz.transactions.softkey import SoftKey, new_key
from aftergate.service.people import People
from aftergate.settings import Settings
from aftergate.stores.database import Database

START_MS = 1_800_000_000_000
OPERATOR = Actor("operator", "test")


class Log:
    """Keeps records, sealed as the real log seals them: a record that it would refuse fails here too."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.leaves: list[bytes] = []

    def append(self, _connection: Any, records: list[Record]) -> list[int]:
        for record in records:
            self.leaves.append(seal(record, len(self.leaves), START_MS, lambda: secrets.token_bytes(16)).leaf)
            self.records.append(record)
        return []

    def types(self) -> list[str]:
        return [record.type for record in self.records]


class Time:
    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms

    def pass_(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


class House:
    """What `People` needs of the server's core."""

    def __init__(self, database: Database, settings: Settings, url: str = "https://gate.example.org") -> None:
        self.settings = settings
        self.db = database
        self.url = url
        self.clock = Time()
        self.pepper = b"p" * 32
        self.audit = Log()
        self.people = People(self)  # type: ignore[arg-type]

    def enrolled(self, person: str = "alice", **about: Any) -> SoftKey:
        """A person with one authenticator."""
        _, link = self.people.add(person, by=OPERATOR, **about)
        return self.register(link.url.partition("#")[2])

    def register(self, secret: str, **change: Any) -> SoftKey:
        begun = self.people.enrolment.begin_with_link(secret)
        key, made = self.made(begun.options, **change)
        done = self.people.enrolment.finish(begun.ticket, made, "", secret=secret)
        assert hasattr(done, "credential_id"), done
        return key

    def made(self, options: dict[str, Any], origin: str = "", **change: Any) -> tuple[SoftKey, dict[str, Any]]:
        from msgspec.structs import replace

        key = new_key(options["rp"]["id"], unb64url(options["user"]["id"]), secrets.token_bytes)
        return replace(key, **change).register(unb64url(options["challenge"]), origin or self.url)

    def login(self, key: SoftKey, *, origin: str = "", instead_of: str = "") -> tuple[SoftKey, Any]:
        begun = self.people.logins.passkey_begin()
        key, answer = key.assertion(unb64url(begun.options["challenge"]), origin or self.url)
        return key, self.people.logins.passkey_finish(begun.ticket, answer, instead_of=instead_of)
