"""What is kept, for how long, and how a person is forgotten: beside the log things go, in the log a record says how many.

The tree is never touched: hashes stay, so every proof and every checkpoint holds after an erasure as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import structlog
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, delete, select, update

from aftergate.audit.records import Actor, Record
from aftergate.errors import ConfigError
from aftergate.stores.audit_log import AuditLog
from aftergate.stores.audit_reading import Tables, refolded
from aftergate.stores.database import Database
from aftergate.stores.tables.audit import audit_beside, audit_leaves, audit_personal, audit_refs
from aftergate.stores.tables.base import finding_subjects, findings

if TYPE_CHECKING:
    from aftergate.service.core import Core

log = structlog.get_logger("aftergate")
DAY_MS: Final = 86_400_000
EVERY_MS: Final = 3_600_000
SERVER: Final = Actor("server", "retention")
ORDINARY: Final = ("decision", "decision.batch", "tool.allowed")


class Erased(Struct, frozen=True):
    """How many things went."""

    personal: int = 0
    request: int = 0
    evidence: int = 0
    records: int = 0

    def any(self) -> bool:
        return bool(self.personal or self.request or self.evidence or self.records)


class Retention:
    """Called by the server's timer; does its round once an hour."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._next_ms = 0

    def tick(self, now_ms: int) -> None:
        """Raises: StoreUnavailable, LogRefused; the next tick tries again."""
        if now_ms < self._next_ms:
            return
        settings = self._core.settings
        days = {
            "request": settings.keep_decision_details_days,
            "personal": settings.keep_personal_days,
            "evidence": settings.keep_evidence_days,
            "records": settings.keep_permits_days,
        }
        gone = sweep(self._core.db, self._core.audit, days, now_ms)
        forgotten = forget_findings(self._core.db, now_ms - settings.keep_findings_days * DAY_MS) if settings.keep_findings_days else 0
        if gone.any() or forgotten:
            log.info(
                "retention", personal=gone.personal, requests=gone.request, evidence=gone.evidence, records=gone.records, findings=forgotten
            )
        self._next_ms = now_ms + EVERY_MS


def sweep(database: Database, audit: AuditLog, days: dict[str, int], now_ms: int) -> Erased:
    """Erase what is older than its class is kept, and record how much. 0 days keeps a class for ever.

    Raises: StoreUnavailable, LogRefused: then nothing went.
    """
    counts: dict[str, int] = {}
    with database.write() as connection:
        _overwrite(connection)
        told: list[Record] = []
        for what, kept in sorted(days.items()):
            if kept <= 0:
                continue
            before = Tables(connection).first_since(now_ms - kept * DAY_MS)
            counts[what] = _expire(connection, what, before)
            if counts[what]:
                told.append(
                    Record(
                        "erasure",
                        actor=SERVER,
                        detail={"what": what, "count": counts[what], "before": before, "days": kept, "rule": "retention"},
                    )
                )
        audit.append(connection, told)
    return Erased(**counts)


def _expire(connection: Connection, what: str, before: int) -> int:
    if what == "personal":
        return _gone(connection, audit_personal, audit_personal.c.seq < before)
    if what != "records":
        return _gone(connection, audit_beside, (audit_beside.c.seq < before) & (audit_beside.c.kind == what))
    # A record that people can ask for by an id belongs to a transaction, or to a denial that may become one: it stays.
    asked_for = select(audit_refs.c.seq).where(audit_refs.c.seq == audit_leaves.c.seq).exists()
    held = (audit_leaves.c.seq < before) & audit_leaves.c.body.is_not(None) & audit_leaves.c.type.in_(ORDINARY) & ~asked_for
    pruned = select(audit_leaves.c.seq).where(held)
    # What stood beside them goes with them: without the record it could not be checked against anything.
    for table in (audit_personal, audit_beside):
        _gone(connection, table, table.c.seq.in_(pruned))
    return connection.execute(update(audit_leaves).where(held).values(body=None)).rowcount


def erase_person(
    database: Database, audit: AuditLog, names: Sequence[str], *, by: Actor, reason: str, keep_evidence: bool = False
) -> Erased:
    """Forget a person in the trail: every value that is one of `names`, and the requests and evidence of the records that held one.

    `names` are all ids and aliases the person was recorded under; case does not matter. `keep_evidence` leaves approvals verifiable, where a duty
    to keep them goes before (the person's id stays in them). The erasure record holds counts, not names, and not which records.
    Raises: ConfigError, without a name; StoreUnavailable, LogRefused: then nothing went.
    """
    wanted = [name for name in names if name.strip()]
    if not wanted:
        raise ConfigError("say whom to erase", where="names", hint="give every id and alias of the person")
    with database.write() as connection:
        _overwrite(connection)
        looks = [refolded(name) for name in wanted]
        held = select(audit_personal.c.seq).where(audit_personal.c.look.in_(looks))
        request = _gone(connection, audit_beside, audit_beside.c.seq.in_(held) & (audit_beside.c.kind == "request"))
        evidence = (
            0 if keep_evidence else _gone(connection, audit_beside, audit_beside.c.seq.in_(held) & (audit_beside.c.kind == "evidence"))
        )
        personal = _gone(connection, audit_personal, audit_personal.c.look.in_(looks))
        gone = Erased(personal, request, evidence)
        told = [
            Record(
                "erasure",
                actor=by,
                detail={"what": what, "count": count, "rule": "person", "evidence_kept": keep_evidence},
                personal={"reason": reason} if reason else {},
            )
            for what, count in (("personal", personal), ("request", request), ("evidence", evidence))
            if count
        ]
        audit.append(connection, told)
    _flush(database)
    return gone


def forget_findings(database: Database, before_ms: int) -> int:
    """Drop findings that were closed before this time; open ones stay however old. Raises: StoreUnavailable."""
    old = (findings.c.closed_ms.is_not(None)) & (findings.c.closed_ms < before_ms)
    with database.write() as connection:
        _gone(connection, finding_subjects, finding_subjects.c.finding.in_(select(findings.c.number).where(old)))
        return _gone(connection, findings, old)


def _gone(connection: Connection, table: Any, which: ColumnElement[bool]) -> int:
    return connection.execute(delete(table).where(which)).rowcount


def _overwrite(connection: Connection) -> None:
    """Let SQLite overwrite what is deleted; PostgreSQL frees it at its next vacuum."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")


def _flush(database: Database) -> None:
    """Bring SQLite's write-ahead file into the database and empty it, so that no old page stays in it."""
    if database.dialect == "sqlite":
        with database.read() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
