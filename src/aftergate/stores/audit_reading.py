"""Reading the log: tiles, records with what stands beside them, and what an export takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, func, select

from aftergate.audit.bundle import Dated
from aftergate.audit.merkle import HASH_SIZE, Frontier
from aftergate.audit.records import Attachment, Kept
from aftergate.audit.tiles import root_of
from aftergate.events.clock import to_iso
from aftergate.stores.errors import LogRefused
from aftergate.stores.tables.audit import audit_beside, audit_checkpoints, audit_head, audit_leaves, audit_nodes, audit_personal, audit_refs

MANY = 500  # numbers in one `IN`


class Head(NamedTuple):
    """The log as it stands: how many records, when the last, what was signed."""

    size: int
    last_ms: int
    origin: str
    signed_size: int
    signed_root: bytes
    frontier: Frontier

    @property
    def root(self) -> bytes:
        return self.frontier.root()


class Entry(NamedTuple):
    """A record read back, with what still stands beside it. `raw` is None once the record was pruned."""

    seq: int
    ms: int
    type: str
    raw: dict[str, Any] | None
    personal: dict[str, str]
    beside: dict[str, Any]


def read_head(connection: Connection, *, lock: bool = False) -> Head:
    """The head row; with `lock` it is held until the transaction ends (PostgreSQL; on SQLite the transaction itself is the lock).

    Raises: LogRefused, if the row is gone or damaged.
    """
    query = select(audit_head).where(audit_head.c.id == 1)
    row = connection.execute(query.with_for_update() if lock and connection.dialect.name == "postgresql" else query).one_or_none()
    try:
        if row is None:
            raise ValueError
        frontier = Frontier.load(row.size, bytes(row.frontier))
    except ValueError:
        raise LogRefused("the audit log's head is damaged", where="audit_head", hint="restore the database from a copy") from None
    return Head(row.size, row.last_ms, row.origin, row.signed_size, bytes(row.signed_root), frontier)


def refolded(value: str) -> bytes:
    """By which a personal value is looked up, whatever its case."""
    return hashlib.sha256(value.strip().casefold().encode("utf-8", "replace")).digest()[:16]


class Tables:
    """The `Source` port of an export, and the hash reader of proofs, over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def hashes(self, level: int, first: int, count: int) -> Sequence[bytes]:
        """Raises: LogRefused, if one is missing: the table was tampered with or damaged."""
        if level == 0:
            query = (
                select(audit_leaves.c.hash)
                .where(audit_leaves.c.seq >= first, audit_leaves.c.seq < first + count)
                .order_by(audit_leaves.c.seq)
            )
        else:
            place = audit_nodes.c.place
            query = select(audit_nodes.c.hash).where(audit_nodes.c.level == level, place >= first, place < first + count).order_by(place)
        made = [bytes(each) for each in self._connection.execute(query).scalars()]
        if len(made) != count or any(len(each) != HASH_SIZE for each in made):
            raise LogRefused(
                f"hashes {first} to {first + count - 1} of level {level} are missing",
                where="audit log",
                hint="restore the database from a copy",
            )
        return made

    def root(self, size: int) -> bytes:
        return root_of(self, size)

    def entries(self, first: int, count: int) -> Sequence[bytes]:
        query = (
            select(audit_leaves.c.body).where(audit_leaves.c.seq >= first, audit_leaves.c.seq < first + count).order_by(audit_leaves.c.seq)
        )
        return [b"" if body is None else bytes(body) for body in self._connection.execute(query).scalars()]

    def attachments(self, first: int, count: int) -> Sequence[tuple[int, Attachment]]:
        table = audit_beside
        query = select(table).where(table.c.seq >= first, table.c.seq < first + count).order_by(table.c.seq, table.c.kind)
        return [(row.seq, Attachment(row.kind, bytes(row.salt), bytes(row.body))) for row in self._connection.execute(query)]

    def personal(self, first: int, count: int) -> Sequence[tuple[int, Kept]]:
        table = audit_personal
        query = select(table).where(table.c.seq >= first, table.c.seq < first + count).order_by(table.c.seq, table.c.field)
        return [(row.seq, Kept(row.field, bytes(row.salt), row.value)) for row in self._connection.execute(query)]

    def checkpoints(self) -> list[Dated]:
        rows = self._connection.execute(select(audit_checkpoints).order_by(audit_checkpoints.c.size))
        return [Dated(row.size, to_iso(row.ms), row.note.encode()) for row in rows]

    def checkpoint(self) -> bytes | None:
        """The newest signed one."""
        note = self._connection.execute(
            select(audit_checkpoints.c.note).order_by(audit_checkpoints.c.size.desc()).limit(1)
        ).scalar_one_or_none()
        return None if note is None else note.encode()

    def first_since(self, at_ms: int) -> int:
        """Number of the first record of `at_ms` or later; the size of the log, if there is none. Times never fall, so halving finds it."""
        low, high = 0, read_head(self._connection).size
        while low < high:
            middle = (low + high) // 2
            if self._connection.execute(select(audit_leaves.c.ms).where(audit_leaves.c.seq == middle)).scalar_one() < at_ms:
                low = middle + 1
            else:
                high = middle
        return low

    def read(self, seqs: Iterable[int]) -> list[Entry]:
        """Records with what stands beside them, in order."""
        wanted = sorted(set(seqs))
        made: list[Entry] = []
        for start in range(0, len(wanted), MANY):
            part = wanted[start : start + MANY]
            personal: dict[int, dict[str, str]] = {}
            for row in self._connection.execute(select(audit_personal).where(audit_personal.c.seq.in_(part))):
                personal.setdefault(row.seq, {})[row.field] = row.value
            beside: dict[int, dict[str, Any]] = {}
            for row in self._connection.execute(select(audit_beside).where(audit_beside.c.seq.in_(part))):
                beside.setdefault(row.seq, {})[row.kind] = msgspec.json.decode(bytes(row.body))
            query = select(audit_leaves).where(audit_leaves.c.seq.in_(part)).order_by(audit_leaves.c.seq)
            for row in self._connection.execute(query):
                raw = None if row.body is None else msgspec.json.decode(bytes(row.body))
                made.append(Entry(row.seq, row.ms, row.type, raw, personal.get(row.seq, {}), beside.get(row.seq, {})))
        return made

    def find(self, ref: str) -> list[int]:
        """Numbers of the records that belong to a transaction, an approval, an evaluation or a task."""
        return list(self._connection.execute(select(audit_refs.c.seq).where(audit_refs.c.ref == ref).order_by(audit_refs.c.seq)).scalars())

    def latest(self, count: int, *, types: Iterable[str] = (), before: int | None = None) -> list[Entry]:
        """The newest records, newest last; of some types only, and before one, if said."""
        query = select(audit_leaves.c.seq).order_by(audit_leaves.c.seq.desc()).limit(count)
        kinds = list(types)
        if kinds:
            query = query.where(audit_leaves.c.type.in_(kinds))
        if before is not None:
            query = query.where(audit_leaves.c.seq < before)
        return self.read(self._connection.execute(query).scalars())

    def counts(self) -> dict[str, int]:
        """How many records there are of each type."""
        query = select(audit_leaves.c.type, func.count()).group_by(audit_leaves.c.type)
        return {row[0]: row[1] for row in self._connection.execute(query)}
