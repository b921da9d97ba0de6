"""Callers' API keys: shown once, kept as a keyed hash, with scopes, an end, and a way to take them back."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from msgspec import Struct
from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from aftergate.audit.records import Actor, Record
from aftergate.errors import ConfigError
from aftergate.stores.errors import StoreUnavailable
from aftergate.stores.tables.base import api_keys

if TYPE_CHECKING:
    from aftergate.service.core import Ground

log = structlog.get_logger("aftergate")

SCOPES: Final = ("decide", "request", "tasks", "findings", "audit", "admin", "metrics")
TOPIC: Final = "keys"
LEAST_LENGTH: Final = 20
MOST_LENGTH: Final = 500
LEAST_DIFFERENT: Final = 8
MOST_NAME: Final = 200
USED_EVERY_MS: Final = 60_000
LOOK_EVERY_MS: Final = 200
MOST_RECENT: Final = 10_000
MARK: Final = "agk_"


class Key(Struct, frozen=True):
    """What is known of one key."""

    id: str
    name: str
    scopes: frozenset[str]
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None
    last_used_ms: int | None = None  # to within a minute

    def usable(self, now_ms: int) -> bool:
        return self.revoked_ms is None and (self.expires_ms is None or self.expires_ms > now_ms)


class ApiKeys:
    """All keys in memory, by keyed hash; renewed when any process changes them."""

    def __init__(self, core: Ground) -> None:
        self._core = core
        self._held: dict[bytes, Key] = {}
        # By plain hash of what it came in: only of keys that are known, so it is hardly longer than they are many.
        self._recent: dict[bytes, tuple[Key, Actor]] = {}
        self._seen = -1
        self._refreshing = threading.Lock()
        self._looked_ms = 0
        self._used: dict[str, int] = {}
        self._used_next_ms = 0

    def digest(self, key: str) -> bytes:
        """What a key is known by: HMAC-SHA256 under a secret of this installation, so that a copied database finds no key."""
        return hmac.digest(self._core.pepper, key.encode(), "sha256")

    def refresh(self, version: int | None = None) -> None:
        """Read the keys again if they changed.

        Raises: StoreUnavailable.
        """
        with self._refreshing:
            if version is None:
                version = self._core.db.versions().get(TOPIC, 0)
            if version != self._seen:
                with self._core.db.read() as connection:
                    self._held = {bytes(row.digest): _key(row) for row in connection.execute(select(api_keys))}
                self._recent = {}
                self._seen = version

    def changed(self, now_ms: int) -> bool:
        """Whether another process has changed the keys: looked at when one is not known, so that a new key is good at once. Blocks.

        A few times a second at most, whoever tries keys.
        """
        if now_ms - self._looked_ms < LOOK_EVERY_MS:
            return False
        self._looked_ms = now_ms
        seen = self._seen
        try:
            self.refresh()
        except StoreUnavailable:
            return False
        return self._seen != seen

    def find(self, key: str, now_ms: int, came_in: bytes = b"") -> Key | None:
        """The key's entry, if it may be used now. `came_in` is the header that held it, by which `recalled` knows it the next time."""
        # INVARIANT: taken before `_held` is read, as `refresh` replaces them the other way round: what an older set still held never gets
        # into the newer memory, where a revoked key would live on.
        recent = self._recent
        held = self._held.get(self.digest(key))
        if held is None or not held.usable(now_ms):
            return None
        if came_in and len(recent) < MOST_RECENT:
            recent[hashlib.sha256(came_in).digest()] = held, Actor("api-key", held.id)
        self._used[held.id] = now_ms
        return held

    def recalled(self, came_in: bytes, now_ms: int) -> tuple[Key, Actor] | None:
        """The entry of a key that came in these very bytes before, and as whom it acts; None, if it did not, or may not be used now.

        A keyed hash gives up the interpreter, which costs more than the hash: what was looked up once is known by a plain one, in memory only.
        """
        held = self._recent.get(hashlib.sha256(came_in).digest())
        if held is None or not held[0].usable(now_ms):
            return None
        self._used[held[0].id] = now_ms
        return held

    def usable(self, now_ms: int) -> int:
        """How many keys could be used now."""
        return sum(1 for each in self._held.values() if each.usable(now_ms))

    def tick(self, now_ms: int) -> None:
        """Write down, once a minute, which keys were used. Raises: StoreUnavailable; the next tick tries again."""
        if now_ms < self._used_next_ms:
            return
        used = dict(self._used)
        if used:
            with self._core.db.write() as connection:
                for key_id, at in used.items():
                    connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(last_used_ms=at))
        for key_id, at in used.items():
            if self._used.get(key_id) == at:
                del self._used[key_id]
        self._used_next_ms = now_ms + USED_EVERY_MS

    def all(self) -> list[Key]:
        """Every key, oldest first.

        Raises: StoreUnavailable.
        """
        with self._core.db.read() as connection:
            return [_key(row) for row in connection.execute(select(api_keys).order_by(api_keys.c.created_ms, api_keys.c.id))]

    def create(
        self, name: str, scopes: Iterable[str], *, by: Actor, expires_ms: int | None = None, key: str | None = None
    ) -> tuple[str, Key]:
        """A new key, in clear for this one time, and its entry. `key` brings in one that was made elsewhere.

        Raises: ConfigError, for an unknown scope or a weak key; StoreUnavailable.
        """
        wanted = frozenset(scopes)
        unknown = wanted.difference(SCOPES)
        if unknown or not wanted:
            raise ConfigError(
                f"no such scope: {', '.join(sorted(unknown)) or '(none given)'}", where="scopes", hint=f"the scopes are {', '.join(SCOPES)}"
            )
        if not name or len(name) > MOST_NAME or not name.isprintable():
            raise ConfigError(
                f"a key's name is 1 to {MOST_NAME} printable characters", where="name", hint="name the caller that will hold the key"
            )
        if expires_ms is not None and expires_ms <= self._core.clock():
            raise ConfigError("this key would have ended before it began", where="expires", hint="give a time to come")
        if key is not None:
            _strong(key)
        clear = key or MARK + secrets.token_urlsafe(32)
        entry = Key("key-" + hashlib.sha256(self.digest(clear)).hexdigest()[:12], name, wanted, self._core.clock(), expires_ms)
        try:
            with self._core.db.write() as connection:
                self._insert(connection, clear, entry, by)
        except IntegrityError:
            raise ConfigError("this key is there already", where="key", hint="`aftergate keys list` shows it") from None
        self.refresh()
        return clear, entry

    def _insert(self, connection: Connection, clear: str, entry: Key, by: Actor) -> None:
        values = {
            "id": entry.id, "digest": self.digest(clear), "name": entry.name, "scopes": " ".join(sorted(entry.scopes)),
            "created_ms": entry.created_ms, "expires_ms": entry.expires_ms,
        }  # fmt: skip
        connection.execute(insert(api_keys).values(**values))
        self._core.db.touch(connection, TOPIC)
        record = Record(type="admin.key.created", actor=by, detail={"key": entry.id, "name": entry.name, "scopes": sorted(entry.scopes)})
        self._core.audit.append(connection, [record])

    def revoke(self, key_id: str, *, by: Actor) -> bool:
        """Take a key back, at once for this process and within the refresh time for others; false if it was not in use."""
        with self._core.db.write() as connection:
            query = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_ms.is_(None)).values(revoked_ms=self._core.clock())
            done = bool(connection.execute(query).rowcount)
            if done:
                self._core.db.touch(connection, TOPIC)
                self._core.audit.append(connection, [Record(type="admin.key.revoked", actor=by, detail={"key": key_id})])
        self.refresh()
        return done

    def take_file(self, path: Path) -> tuple[int, str | None]:
        """Bring in the keys of a file, one a line: `KEY [NAME [SCOPE,SCOPE]]`; `#` begins a comment. A missing file is made with one new key.

        Returns how many keys the file holds, and the name of the file when it was made.
        Raises: ConfigError, if it can't be read or made, or a line can't be used.
        """
        by = Actor("operator", "api-key-file")
        made: str | None = None
        if not path.exists():
            clear = MARK + secrets.token_urlsafe(32)
            write_secret(path, f"# one key a line: KEY [NAME [SCOPE,SCOPE]]\n{clear} first\n")
            made = str(path)
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
            raise ConfigError(
                f"cannot read the key file: {reason}", where=str(path), hint="give a readable file with --api-key-file"
            ) from e
        self.refresh()
        told: dict[str, int] = {}
        for number, line in enumerate(lines, 1):
            words = line.split("#", 1)[0].split()
            if not words:
                continue
            where = f"{path}:{number}"
            if len(words) > 3:
                raise ConfigError("more than KEY NAME SCOPES", where=where, hint="write scopes with commas and no spaces")
            if words[0] in told:
                raise ConfigError(f"the key of line {told[words[0]]} again", where=where, hint="give each caller a key of its own")
            told[words[0]] = number
            scopes = frozenset(words[2].split(",")) if len(words) > 2 else frozenset(SCOPES)
            try:
                if self.digest(words[0]) not in self._held:
                    self._take(words[0], words[1] if len(words) > 1 else f"file-{number}", scopes, by)
            except ConfigError as e:
                raise ConfigError(e.message, where=where, hint=e.hint) from e
            held = self._held[self.digest(words[0])]
            if len(words) > 2 and held.scopes != scopes:
                raise ConfigError(
                    f"this key ({held.id}) is known with other scopes: {','.join(sorted(held.scopes))}",
                    where=where,
                    hint="write those, or revoke it and write a new key: what a key may do does not change",
                )
            if not held.usable(self._core.clock()):
                log.warning(
                    "a key in the key file may not be used: it was revoked or has expired", file=str(path), line=number, key=held.id
                )
        if not told:
            raise ConfigError(
                "the key file holds no key", where=str(path), hint="write one key a line, or delete the file to have one made"
            )
        return len(told), made

    def _take(self, key: str, name: str, scopes: frozenset[str], by: Actor) -> None:
        try:
            self.create(name, scopes, by=by, key=key)
        except ConfigError:
            self.refresh()
            if self.digest(key) not in self._held:  # else another server that starts with the same file was first
                raise


def _strong(key: str) -> None:
    """Raises: ConfigError, for a key that can be guessed or cannot be sent."""
    hint = f"use at least {LEAST_LENGTH} random characters, for example from `openssl rand -base64 32`"
    if len(key) < LEAST_LENGTH or len(set(key)) < LEAST_DIFFERENT:
        raise ConfigError(f"a key of {len(key)} characters, {len(set(key))} of them different, can be guessed", where="key", hint=hint)
    if len(key) > MOST_LENGTH or not key.isascii() or not key.isprintable():
        raise ConfigError(f"a key is at most {MOST_LENGTH} printable ASCII characters", where="key", hint=hint)


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read.

    Raises: ConfigError.
    """
    import os

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as e:
        raise ConfigError(
            f"cannot write the file: {e.strerror}", where=str(path), hint="choose a place that the server may write to"
        ) from e


def _key(row: Row[Any]) -> Key:
    return Key(row.id, row.name, frozenset(row.scopes.split()), row.created_ms, row.expires_ms, row.revoked_ms, row.last_used_ms)
