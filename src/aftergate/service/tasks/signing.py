"""The keys that sign tokens: secret halves in the data directory, public halves in the database, both rotated in time.

Several server processes sign each with its own key and verify with all. Two that share a data directory share its keys: the database's write lock
puts their renewals in a row.
"""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from aftergate.audit.records import Actor, Record
from aftergate.authz.tasks import keys as k
from aftergate.errors import ConfigError
from aftergate.stores import tasks as store

if TYPE_CHECKING:
    from aftergate.service.core import Core

SERVER: Final = Actor("server", "tasks")
LOOK_MS: Final = 60_000
AGAIN_MS: Final = 2_000  # a token with an unknown key id asks the database again at most this often


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


class _Kept(Struct):
    kid: str
    private: dict[str, Any]
    public: dict[str, Any]
    published_ms: int
    active_ms: int
    retire_ms: int
    gone_ms: int


class Signing:
    """The ring of one process."""

    def __init__(self, core: Core) -> None:
        """Raises: ConfigError, if the key file is there and can't be used; StoreUnavailable."""
        self._core = core
        self._path = core.data / "keys" / "tokens.json"
        day = 86_400_000
        self._timing = k.Timing(sign_ms=30 * day, ahead_ms=day, overlap_ms=day + core.settings.token_ttl_s * 1000)
        self._ring: tuple[k.SigningKey, ...] = ()
        self._lock = threading.Lock()
        self._looked_ms = 0
        self.renew(core.clock())

    def renew(self, now_ms: int) -> None:
        """See that there is a key that signs, and a next one in time; see other processes' keys. Raises: ConfigError, StoreUnavailable."""
        self._changed(now_ms, by_hand=False)

    def rotate(self, by: Actor) -> str:
        """Stop the own keys now and begin a new one, as after a suspected theft; its id. Raises: ConfigError, StoreUnavailable."""
        return self._changed(self._core.clock(), by_hand=True, by=by)

    def _changed(self, now_ms: int, *, by_hand: bool, by: Actor = SERVER) -> str:
        with self._lock, self._core.db.write() as connection:
            own = self._read()
            held = {key.kid: key for key in store.keys(connection)}
            if by_hand:
                ring, new = k.rotated(own, now_ms, self._timing, new_key)
                fresh: tuple[k.SigningKey, ...] = (new,)
            else:
                ring, fresh = k.renewed(own, now_ms, self._timing, new_key)
            if ring != own:
                self._write(ring)
            for key in ring:
                shown = held.get(key.kid)
                if shown is None or (shown.active_ms, shown.retire_ms, shown.gone_ms) != (key.active_ms, key.retire_ms, key.gone_ms):
                    store.put_key(connection, key)
            store.drop_keys(connection, now_ms)
            others = tuple(key for kid, key in held.items() if kid not in {each.kid for each in ring})
            if fresh:
                detail = {"keys": [key.kid for key in fresh], "by_hand": by_hand}
                self._core.audit.append(connection, [Record(type="admin.token_key.rotated", actor=by, detail=detail)])
        self._ring = (*ring, *others)
        self._looked_ms = now_ms
        return fresh[0].kid if fresh else ""

    def signer(self, now_ms: int) -> k.SigningKey:
        """The key that signs now. Raises: ConfigError, StoreUnavailable, where none could be made."""
        found = k.signer(self._ring, now_ms)
        if found is None:
            self.renew(now_ms)
            found = k.signer(self._ring, now_ms)
        if found is None:
            raise ConfigError("no key can sign tokens", where=str(self._path))
        return found

    def jwks(self, now_ms: int) -> dict[str, Any]:
        """The public set, other processes' keys included."""
        return k.jwks(self._ring, now_ms)

    def for_kid(self, kid: Any, now_ms: int) -> dict[str, Any]:
        """The public set, looked at again when it does not hold this key: another process may have begun it a moment ago."""
        if not any(key.kid == kid for key in self._ring) and now_ms - self._looked_ms >= AGAIN_MS:
            self._look(now_ms)
        return self.jwks(now_ms)

    def _look(self, now_ms: int) -> None:
        with self._core.db.read() as connection:
            held = store.keys(connection)
        own = [key for key in self._ring if key.private is not None]
        self._ring = (*own, *(key for key in held if key.kid not in {each.kid for each in own}))
        self._looked_ms = now_ms

    def tick(self, now_ms: int) -> None:
        if now_ms - self._looked_ms >= LOOK_MS:
            ring, fresh = k.renewed([key for key in self._ring if key.private is not None], now_ms, self._timing, new_key)
            if fresh or len(ring) != sum(key.private is not None for key in self._ring):
                self.renew(now_ms)
            else:
                self._look(now_ms)

    def _read(self) -> tuple[k.SigningKey, ...]:
        if not self._path.exists():
            return ()
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=list[_Kept])
        except OSError as e:
            raise ConfigError(
                f"cannot read the token keys: {e.strerror}", where=str(self._path), hint="let the server's user read the file"
            ) from e
        except msgspec.DecodeError as e:
            raise ConfigError(
                "the token keys are damaged", where=str(self._path),
                hint="restore the file from a copy, or delete it: a new key begins, and tokens given out so far stay verifiable",
            ) from e  # fmt: skip
        return tuple(k.SigningKey(o.kid, o.public, o.published_ms, o.active_ms, o.retire_ms, o.gone_ms, o.private) for o in kept)

    def _write(self, ring: tuple[k.SigningKey, ...]) -> None:
        """Replace the file in one step, readable by its owner only."""
        kept = [
            _Kept(key.kid, key.private, key.public, key.published_ms, key.active_ms, key.retire_ms, key.gone_ms)
            for key in ring
            if key.private is not None
        ]
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            number, name = tempfile.mkstemp(dir=folder, prefix=".tokens-")  # mkstemp makes it 0600
            with os.fdopen(number, "wb") as file:
                file.write(msgspec.json.encode(kept))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except OSError as e:
            raise ConfigError(
                f"cannot write the token keys: {e.strerror}", where=str(folder), hint="let the server's user write there"
            ) from e
