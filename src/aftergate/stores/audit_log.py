"""The audit log: appended to within the transaction of what it records, signed at intervals, and refused when it no longer fits what was signed."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec.structs import replace
from sqlalchemy import Connection, delete, insert, update

from aftergate.audit import export
from aftergate.audit.bundle import Member
from aftergate.audit.merkle import consistency_proof, inclusion_proof, leaf_hash
from aftergate.audit.notes import Checkpoint, b64, parse_note
from aftergate.audit.proof import TlogProof
from aftergate.audit.records import PERSONAL_TYPES, SALT_BYTES, Actor, Record, seal
from aftergate.audit.tiles import subtrees
from aftergate.errors import ConfigError
from aftergate.settings import Settings
from aftergate.stores.audit_reading import Head, Tables, read_head, refolded
from aftergate.stores.audit_signer import SignerFiles, origins_of
from aftergate.stores.database import Database
from aftergate.stores.errors import LogRefused
from aftergate.stores.tables.audit import audit_beside, audit_checkpoints, audit_head, audit_leaves, audit_nodes, audit_personal, audit_refs

SKEW_MS: Final = 1_000
RESTORE: Final = (
    "restore the database that was in use, or, if its records are lost for good, say so with `aftergate audit restart --reason TEXT`"
)


class AuditLog:
    """One process's hold on the log. Several processes share database and data directory: the head row's lock puts them in a row.

    INVARIANT: no two signed heads disagree. A head goes to the file outside the database before the database hears of it, and nothing is signed
    or appended once file and database disagree.
    """

    def __init__(
        self,
        database: Database,
        signer: SignerFiles,
        clock: Callable[[], int],
        *,
        checkpoint_ms: int = 10_000,
        heartbeat_ms: int = 300_000,
        personal_types: frozenset[str] = PERSONAL_TYPES,
    ) -> None:
        self.database = database
        self.signer = signer
        self._clock = clock
        self._checkpoint_ms = checkpoint_ms
        self._heartbeat_ms = heartbeat_ms
        self._personal_types = personal_types
        self.instance = secrets.token_hex(6)
        self._refused: LogRefused | None = None
        self._next_checkpoint = 0
        self._next_heartbeat = 0
        self._alive = False
        self._lock = threading.Lock()
        self.skew_ms = 0  # how far the clock was behind the log at the last append

    @classmethod
    def open(cls, settings: Settings, database: Database, clock: Callable[[], int], url: str) -> AuditLog:
        """The log of a server that is reached at `url`. Raises: ConfigError, StoreUnavailable."""
        folder = Path(settings.data) / "audit"
        origin = (
            settings.audit_origin
            or next(iter(origins_of(folder)), "")
            or f"{urlsplit(url).hostname or 'localhost'}/aftergate/{secrets.token_hex(4)}"
        )
        return cls.at(database, folder, origin, clock, checkpoint_ms=settings.checkpoint_s * 1000, heartbeat_ms=settings.heartbeat_s * 1000)

    @classmethod
    def at(cls, database: Database, folder: Path, origin: str, clock: Callable[[], int], *, lost: bool = False, **options: Any) -> AuditLog:
        """Open with its key in `folder`, and compare database and signed heads: if they disagree the log opens, but refuses to append.

        An empty `origin` takes the name the log was begun with; `lost` opens it without its key, so that another can be made.
        Raises: ConfigError, StoreUnavailable.
        """
        with database.read() as connection:
            head = read_head(connection)
        signer = SignerFiles.open(folder, origin or head.origin, max(clock(), head.last_ms), begun=head.signed_size > 0, lost=lost)
        log = cls(database, signer, clock, **options)
        log.recheck()
        return log

    # Appending

    def append(self, connection: Connection, records: Sequence[Record]) -> list[int]:
        """Add records in the caller's write transaction; gives their numbers. They are durable once that transaction has committed.

        The head stays locked until then, so append last: whoever takes other locks afterwards may wait for somebody who waits for the head.
        Raises: LogRefused, BadRecord, StoreUnavailable. Then the caller's transaction must not commit.
        """
        if self._refused is not None:
            raise self._refused
        if not records:
            return []
        head = read_head(connection, lock=True)
        now = self._clock()
        self.skew_ms = max(0, head.last_ms - now)
        at_ms = max(now, head.last_ms)
        if self.skew_ms > SKEW_MS:
            first = records[0]
            records = [replace(first, detail={**first.detail, "clock_skew_ms": self.skew_ms}), *records[1:]]
        self._write(connection, head, records, at_ms)
        return list(range(head.size, head.size + len(records)))

    def _write(self, connection: Connection, head: Head, records: Sequence[Record], at_ms: int) -> None:
        frontier = head.frontier
        rows: dict[Any, list[dict[str, Any]]] = {t: [] for t in (audit_leaves, audit_nodes, audit_beside, audit_personal, audit_refs)}
        for seq, record in enumerate(records, head.size):
            sealed = seal(record, seq, at_ms, _salt, self._personal_types)
            digest = leaf_hash(sealed.leaf)
            rows[audit_leaves].append({"seq": seq, "ms": at_ms, "type": record.type, "hash": digest, "body": sealed.leaf})
            rows[audit_nodes] += ({"level": level, "place": place, "hash": made} for level, place, made in frontier.add(digest))
            rows[audit_beside] += ({"seq": seq, "kind": a.kind, "salt": a.salt, "body": a.body} for a in sealed.attachments)
            rows[audit_personal] += (
                {"seq": seq, "field": k.field, "salt": k.salt, "value": k.value, "look": refolded(k.value)} for k in sealed.kept
            )
            rows[audit_refs] += ({"ref": ref, "seq": seq} for ref in _refs(record))
        for table, made in rows.items():
            if made:
                connection.execute(insert(table), made)
        connection.execute(
            update(audit_head).where(audit_head.c.id == 1).values(size=frontier.size, frontier=frontier.dump(), last_ms=at_ms)
        )

    # Signing

    def checkpoint(self) -> bytes:
        """Sign the log as it stands; the last signed head again, if nothing was added.

        Raises: LogRefused, if the log does not extend what was signed before; ConfigError, if the head cannot be written down; StoreUnavailable.
        """
        with self._lock, self.database.write() as connection:
            head = read_head(connection, lock=True)
            tables = Tables(connection)
            self._compare(head, tables, self.signer.last())
            if head.signed_size == head.size and (held := tables.checkpoint()) is not None:
                return held
            if tables.root(head.size) != head.root:
                raise self._refuse("the audit log's records are not those its head was built from")
            now = max(self._clock(), head.last_ms)
            checkpoint = Checkpoint(self.signer.ring.origin, head.size, head.root)
            note = self.signer.sign(checkpoint, now)
            # On the disk before the database has it: whoever puts the database back afterwards is found out.
            self.signer.remember(head.size, now, note)
            connection.execute(insert(audit_checkpoints), {"size": head.size, "ms": now, "note": note.decode()})
            values = {"signed_size": head.size, "signed_root": head.root, "origin": checkpoint.origin}
            connection.execute(update(audit_head).where(audit_head.c.id == 1).values(**values))
        return note

    def recheck(self) -> None:
        """Compare database and signed heads; refuse to append if they disagree, take up again if they agree. Raises: StoreUnavailable, ConfigError."""
        # The file first: what another process signs in between is then in the database, and not the other way round.
        written = self.signer.last()
        with self.database.read() as connection:
            self._refused = None
            try:
                self._compare(read_head(connection), Tables(connection), written)
            except LogRefused as error:
                self._refused = error

    def _compare(self, head: Head, tables: Tables, written: Checkpoint | None) -> None:
        if head.origin and head.origin != self.signer.ring.origin:
            raise self._refuse(f"this database holds the log `{head.origin}`, the keys are those of `{self.signer.ring.origin}`")
        signed = [(head.signed_size, head.signed_root)] if head.signed_size else []
        if written is not None and (written.size, written.root) not in signed:
            signed.append((written.size, written.root))
        for size, root in signed:
            if size > head.size:
                raise self._refuse(
                    f"a checkpoint of size {size} was signed, but the database holds {head.size} records: it was put back to an older state"
                )
            if tables.root(size) != root:
                raise self._refuse(f"the first {size} records are not those that were signed: the log was changed or forked")

    def _refuse(self, why: str) -> LogRefused:
        self._refused = LogRefused(why, where="audit log", hint=RESTORE)
        return self._refused

    # Reading

    def last_ms(self) -> int:
        with self.database.read() as connection:
            return read_head(connection).last_ms

    def head(self) -> Head:
        with self.database.read() as connection:
            return read_head(connection)

    def latest(self) -> bytes | None:
        """The newest signed checkpoint."""
        with self.database.read() as connection:
            return Tables(connection).checkpoint()

    def inclusion(self, seq: int) -> TlogProof:
        """Proof of record `seq` under the newest checkpoint. Raises: ValueError, if it is not under one."""
        with self.database.read() as connection:
            tables = Tables(connection)
            note = tables.checkpoint()
            if note is None:
                raise ValueError("no checkpoint yet")
            size = Checkpoint.parse(parse_note(note).text).size
            return TlogProof(seq, tuple(inclusion_proof(seq, size, subtrees(tables))), note)

    def entry(self, seq: int) -> bytes:
        """The bytes of a record; empty, if there is none or it was pruned."""
        with self.database.read() as connection:
            return next(iter(Tables(connection).entries(seq, 1)), b"")

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Proof that the first `old` records are a prefix of the first `new`. Raises: ValueError."""
        with self.database.read() as connection:
            if new > read_head(connection).size:
                raise ValueError("the log is not that long")
            return consistency_proof(old, new, subtrees(Tables(connection)))

    def members(self, *, personal: bool) -> Iterator[Member]:
        """The files of an export over all that is signed, as of one moment. Raises: LogRefused, StoreUnavailable."""
        with self.database.read() as connection:
            tables = Tables(connection)
            checkpoints = tables.checkpoints()
            size = checkpoints[-1].size if checkpoints else 0
            ring = self.signer.ring
            yield from export.members(
                tables, origin=ring.origin, size=size, keys=ring.encode(), checkpoints=checkpoints, at_ms=self._clock(), personal=personal
            )

    def exported(self, *, by: Actor, personal: bool) -> Iterator[Member]:
        """Record that somebody takes the log away, sign it, and give its files. A log that refuses is given as it was last signed.

        Raises: StoreUnavailable, ConfigError.
        """
        if self._refused is None:
            with self.database.write() as connection:
                self.append(connection, [Record("admin.audit.exported", actor=by, detail={"personal": personal})])
            self.checkpoint()
        return self.members(personal=personal)

    # Living

    def tick(self, now_ms: int) -> None:
        """Heartbeats and checkpoints that are due. Raises: LogRefused, ConfigError, StoreUnavailable; the next tick tries again."""
        if self._refused is not None:
            self.recheck()
            if self._refused is not None:
                raise self._refused
        if now_ms >= self._next_heartbeat:
            self.heartbeat()
            self._next_heartbeat = now_ms + self._heartbeat_ms
        if now_ms >= self._next_checkpoint:
            self.checkpoint()
            self._next_checkpoint = now_ms + self._checkpoint_ms

    def heartbeat(self, **counts: int) -> None:
        """Say that this server lives; the first time, that it started. `counts` go along as they are."""
        kind = "heartbeat" if self._alive else "server.started"
        detail = {"instance": self.instance, "interval_ms": self._heartbeat_ms, **counts}
        with self.database.write() as connection:
            self.append(connection, [Record(kind, actor=Actor("server", self.instance), detail=detail)])
        self._alive = True

    def close(self) -> None:
        """Say that this server stops, and sign a last checkpoint. Raises: as `tick`."""
        if self._refused is not None or not self._alive:
            return
        with self.database.write() as connection:
            self.append(connection, [Record("server.stopped", actor=Actor("server", self.instance), detail={"instance": self.instance})])
        self._alive = False
        self.checkpoint()

    def problem(self) -> str | None:
        """What is wrong, in words; None, if all is well."""
        return None if self._refused is None else str(self._refused)

    def rotate(self, overlap_ms: int, *, by: Actor, lost: bool = False) -> str:
        """Begin a new signing key and record it; gives its public form. The old ones go on for `overlap_ms`.

        The new key is announced in the log before it signs anything alone: heads of the old key cover the announcement, unless that one is lost.
        """
        now = max(self._clock(), self.head().last_ms)
        key = self.signer.rotate(now, overlap_ms, lost=lost)
        detail = {"key": key.verifier.vkey, "overlap_ms": overlap_ms, "lost": lost}
        with self.database.write() as connection:
            self.append(connection, [Record("admin.audit_key.rotated", actor=by, detail=detail)])
        self.checkpoint()
        return key.verifier.vkey

    def restart(self, reason: str, *, by: Actor) -> str:
        """Go on under a new name after records were lost for good: the old log ends where it was last signed. Gives the new name.

        Only for a log that refuses: heads signed before stay as they are, in a folder beside, and nobody can take the new log for the old one.
        Raises: ConfigError, if the log is well; StoreUnavailable.
        """
        self.recheck()
        if self._refused is None:
            raise ConfigError("the audit log is well: there is nothing to restart", where="audit log")
        head, last, before = self.head(), self.signer.last(), self.signer.ring.origin
        now = max(self._clock(), head.last_ms)
        base, _, number = before.rpartition("~")
        origin = f"{base}~{int(number) + 1}" if base and number.isdecimal() else f"{before}~2"
        self.signer = self.signer.succeed(origin, now)
        with self.database.write() as connection:
            # Heads of the old name would say that this database belongs to it.
            connection.execute(delete(audit_checkpoints))
            connection.execute(update(audit_head).where(audit_head.c.id == 1).values(origin="", signed_size=0, signed_root=b""))
        self._refused = None
        detail = {
            "before": before,
            "signed_size": last.size if last else head.signed_size,
            "signed_root": b64(last.root if last else head.signed_root),
        }
        with self.database.write() as connection:
            self.append(connection, [Record("admin.audit.restarted", actor=by, detail=detail, personal={"reason": reason})])
        self.checkpoint()
        return origin


def _salt() -> bytes:
    return secrets.token_bytes(SALT_BYTES)


def _refs(record: Record) -> set[str]:
    """Ids by which this record can be found. Ordinary permits have none: they are found by number and time."""
    found = {record.transaction, record.task, record.approval.id if record.approval is not None else ""}
    if record.transaction or record.decision not in ("", "permit"):
        found.add(record.evaluation_id)
    # A yes is found by the ids of what may be used with it, one for each item of a batch.
    approved = (record.evidence or {}).get("object") or {}
    found |= {str(item.get("approval_id", "")) for item in (approved, *approved.get("items", ()))}
    return {ref[:200] for ref in found if ref}
