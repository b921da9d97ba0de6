"""The log's key and what it has signed, in files outside the database: so that a database put back to an older state is noticed.

`DATA/audit/` holds `key-ID` (secret, only its owner reads it), `keys.json` (public keys and their windows) and `checkpoints` (one JSON object a
line, only ever appended to, written through to the disk before the database hears of it).
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from aftergate.audit.errors import BadNote
from aftergate.audit.keys import DatedKey, KeyRing
from aftergate.audit.notes import Checkpoint, Note, Signer, open_checkpoint, valid_name
from aftergate.errors import ConfigError
from aftergate.events.clock import to_iso

KEEP = "restore DATA/audit from a copy of the data directory; if the key is lost, `aftergate audit keys --rotate --lost` begins a new one"


class SignerFiles:
    """The folder with key, windows and signed heads. Several server processes share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ring = KeyRing("", ())
        self._signers: dict[bytes, Signer] = {}
        self._stamp = 0

    @classmethod
    def open(cls, folder: Path, origin: str, now_ms: int, *, begun: bool, lost: bool = False) -> SignerFiles:
        """Open, or make a key at the very first start. `begun` says that the database has signed records already; with `lost` it opens without a key.

        Raises: ConfigError, if a key cannot be read, is missing although the log was begun, or belongs to a log of another name.
        """
        made = cls(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with made._locked():
                if not (folder / "keys.json").exists():
                    if (begun or (folder / "checkpoints").exists()) and not lost:
                        raise ConfigError("the audit log was begun, but its keys are gone", where=str(folder / "keys.json"), hint=KEEP)
                    made._create(origin, now_ms, KeyRing(origin, ()))
        except OSError as error:
            raise ConfigError(
                f"cannot keep the audit key here: {error.strerror}", where=str(folder), hint="give the server's user this folder"
            ) from None
        made.load(secret=not lost)
        if origin and made.ring.origin != origin:
            raise ConfigError(
                f"the audit log was begun as `{made.ring.origin}`, not `{origin}`", where=str(folder), hint="a log keeps its name: set audit_origin to it, or leave it out"
            )  # fmt: skip
        return made

    def load(self, *, secret: bool = True) -> None:
        """Read windows and keys again, if they changed.

        Raises: ConfigError, if they cannot be read; with `secret` also, if the key in use is missing.
        """
        path = self.folder / "keys.json"
        try:
            stamp = path.stat().st_mtime_ns
            if stamp == self._stamp:
                return
            ring = KeyRing.parse(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"cannot read the audit log's keys: {error.strerror}", where=str(path), hint=KEEP) from None
        except BadNote as error:
            raise ConfigError(f"the audit log's keys are damaged: {error.message}", where=str(path), hint=KEEP) from None
        signers = {
            k.verifier.key_id: signer for k in ring.keys if (signer := self._secret(k, needed=secret and k.until_ms is None)) is not None
        }
        self.ring, self._signers, self._stamp = ring, signers, stamp

    def _secret(self, key: DatedKey, *, needed: bool) -> Signer | None:
        path = self.folder / f"key-{key.verifier.key_id.hex()}"
        try:
            signer = Signer.parse(path.read_text("utf-8"))
        except (OSError, BadNote, UnicodeDecodeError) as error:
            if not needed:
                return None
            why = error.strerror if isinstance(error, OSError) else "it is damaged"
            raise ConfigError(f"cannot read the audit log's key: {why}", where=str(path), hint=KEEP) from None
        if signer.verifier != key.verifier:
            raise ConfigError("the audit log's key is not the one that keys.json names", where=str(path), hint=KEEP)
        return signer

    def sign(self, checkpoint: Checkpoint, now_ms: int) -> bytes:
        """Signed by every key in use at this time. The caller has seen that it extends every head signed before.

        Raises: ConfigError, if there is none.
        """
        self.load()
        text = checkpoint.text()
        # A key's beginning is not looked at: a clock that was turned back must not leave the log without a key.
        fit = [k for k in self.ring.keys if k.until_ms is None or k.until_ms >= now_ms]
        signatures = [self._signers[k.verifier.key_id].sign(text) for k in fit if k.verifier.key_id in self._signers]
        if not signatures:
            raise ConfigError("no key of the audit log is in use", where=str(self.folder), hint=KEEP)
        return Note(text, tuple(signatures)).encode()

    def remember(self, size: int, now_ms: int, note: bytes) -> None:
        """Append a signed head, through to the disk. A line cut short by a crash or a full disk is closed first and ignored when read.

        Raises: ConfigError, if it cannot be written: then the head must not be given out.
        """
        line = msgspec.json.encode({"size": size, "at": to_iso(now_ms), "note": note.decode()}) + b"\n"
        path = self.folder / "checkpoints"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                end = os.lseek(handle, 0, os.SEEK_END)
                if end and os.pread(handle, 1, end - 1) != b"\n":
                    line = b"\n" + line
                if os.write(handle, line) != len(line):
                    raise OSError(28, "no space left")
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise ConfigError(
                f"cannot write down a signed checkpoint: {error.strerror}", where=str(path), hint="see that the disk has room"
            ) from None

    def last(self) -> Checkpoint | None:
        """The largest head written down and signed by a key of ours; None, if there is none. Raises: ConfigError."""
        self.load(secret=False)  # another process may have begun a new key
        path = self.folder / "checkpoints"
        try:
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise ConfigError(f"cannot read the signed checkpoints: {error.strerror}", where=str(path), hint=KEEP) from None
        for line in reversed(data.split(b"\n")):
            try:
                note = msgspec.json.decode(line)["note"].encode()
                checkpoint, _, _ = open_checkpoint(note, self.ring.verifiers)
            except (msgspec.DecodeError, KeyError, TypeError, AttributeError, BadNote):
                continue  # cut short by a crash
            return checkpoint
        return None

    def rotate(self, now_ms: int, overlap_ms: int, *, lost: bool = False) -> DatedKey:
        """A new key from now on; those in use stay for `overlap_ms`, or end at once if they are `lost`.

        Raises: ConfigError.
        """
        self.load(secret=not lost)
        with self._locked():
            end = now_ms + (0 if lost else overlap_ms)
            kept = tuple(k if k.until_ms is not None and k.until_ms <= end else k._replace(until_ms=end) for k in self.ring.keys)
            made = self._create(self.ring.origin, now_ms, KeyRing(self.ring.origin, kept))
        self._stamp = 0
        self.load()
        return made

    def succeed(self, origin: str, now_ms: int) -> SignerFiles:
        """Put key and heads of this log aside, and begin another of the name `origin` in their place. Raises: ConfigError."""
        try:
            aside = self.folder.with_name(f"{self.folder.name}-ended-{to_iso(now_ms).replace(':', '')}")
            self.folder.rename(aside)
        except OSError as error:
            raise ConfigError(f"cannot put the old log's files aside: {error.strerror}", where=str(self.folder)) from None
        return SignerFiles.open(self.folder, origin, now_ms, begun=False)

    def _create(self, origin: str, now_ms: int, ring: KeyRing) -> DatedKey:
        if not valid_name(origin):
            raise ConfigError(
                f"`{origin}` cannot name an audit log",
                where="audit_origin",
                hint="no spaces and no plus sign, such as log.example/aftergate",
            )
        signer = Signer(origin, secrets.token_bytes(32))
        key = DatedKey(signer.verifier, now_ms)
        _write(self.folder / f"key-{signer.verifier.key_id.hex()}", signer.encode().encode() + b"\n", 0o600)
        _write(self.folder / "keys.json", KeyRing(origin, (*ring.keys, key)).encode(), 0o644)
        return key

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def origins_of(folder: Path) -> Sequence[str]:
    """Names of the log kept in `folder`: none before the first start."""
    try:
        return [KeyRing.parse((folder / "keys.json").read_bytes()).origin]
    except (OSError, BadNote):
        return []


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, and on the disk when it returns."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
