"""Findings as the server holds them: told by scans, closed by people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct
from sqlalchemy import Connection, and_, delete, insert, select, update

from aftergate.events.clock import from_iso
from aftergate.stores.database import Database
from aftergate.stores.tables.base import finding_subjects, findings
from aftergate.vocabulary import RANK, Finding, Subject

TOPIC: Final = "findings"
MAX_SUBJECT: Final = 512
MAX_NAMES: Final = 1_000  # identities, credentials and sessions that one finding may name
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[!-~]+$")]


class Told(Struct):
    """One line of `aftergate scan --findings`, as far as the server needs it; the rest of the line is kept as it came."""

    id: Name
    detection: Name
    severity: Literal["info", "low", "medium", "high", "critical"]
    time: str
    title: str = ""
    narrative: str = ""
    subject: dict[str, str | list[str]] = {}
    evidence: list[str] = []
    sources: list[str] = []
    incident: str = ""
    recommended: list[str] = []


_told = msgspec.json.Decoder(Told)


def read(body: bytes | str) -> Finding:
    """The finding in one JSON object.

    Raises: msgspec.MsgspecError, ValueError.
    """
    told = _told.decode(body)
    at = from_iso(told.time)
    held = {level: [names] if isinstance(names, str) else list(names) for level, names in told.subject.items()}
    subject = Subject(held.get("identity", []), held.get("credential", []), held.get("session", []))
    count = len(subject.identity) + len(subject.credential) + len(subject.session)
    if not count:
        raise ValueError("`subject` names no identity, credential or session")
    if count > MAX_NAMES:
        raise ValueError(f"`subject` has {count} names, which is more than {MAX_NAMES}")
    return Finding(
        id=told.id,
        detection=told.detection,
        severity=told.severity,
        time=at,
        known_at=at,
        title=told.title,
        narrative=told.narrative,
        subject=subject,
        evidence=told.evidence,
        sources=told.sources,
        incident=told.incident,
        recommended=tuple(told.recommended),
    )


def add(database: Database, connection: Connection, told: Iterable[tuple[Finding, str]], at_ms: int) -> list[Finding]:
    """Keep findings (with the JSON they came as) that are not known yet; returns those.

    A known one that rests on later events, or is more severe, is renewed and counts as new; a scan that saw less of the logs lowers nothing.
    One that was closed opens again when its abuse went on after that.
    """
    new: list[Finding] = []
    for finding, body in told:
        columns = (findings.c.number, findings.c.severity, findings.c.time_ms, findings.c.closed_ms, findings.c.body)
        known = connection.execute(select(*columns).where(findings.c.id == finding.id).with_for_update()).first()
        values: dict[str, Any] = {"detection": finding.detection, "severity": finding.severity, "time_ms": finding.time, "body": body}
        if known is not None:
            worse = (RANK[finding.severity], finding.time) > (RANK[known.severity], known.time_ms)
            if known.body == body or not worse or RANK[finding.severity] < RANK[known.severity]:
                continue
            if known.closed_ms is not None and finding.time > known.closed_ms:
                values |= {"closed_ms": None, "closed_by": None}
            connection.execute(update(findings).where(findings.c.number == known.number).values(**values))
            connection.execute(delete(finding_subjects).where(finding_subjects.c.finding == known.number))
            number = known.number
        else:
            added = connection.execute(insert(findings).values(id=finding.id, received_ms=at_ms, **values))
            key = added.inserted_primary_key
            assert key is not None
            number = key[0]
        rows = {
            (level, name[:MAX_SUBJECT])
            for level in ("identity", "credential", "session")
            for name in getattr(finding.subject, level)
        }  # fmt: skip
        connection.execute(insert(finding_subjects), [{"finding": number, "level": level, "subject": name} for level, name in sorted(rows)])
        new.append(finding)
    if new:
        database.touch(connection, TOPIC)
    return new


def open_findings(connection: Connection) -> list[tuple[Finding, int]]:
    """All open ones, with when they were received."""
    held = connection.execute(
        select(findings.c.body, findings.c.received_ms).where(findings.c.closed_ms.is_(None)).order_by(findings.c.number)
    )
    return [(read(row.body), row.received_ms) for row in held]


def open_about(connection: Connection, subjects: Sequence[str]) -> list[tuple[Finding, int]]:
    """The open ones that name any of these subjects, as this transaction sees them: what a consumption asks, so that no cache stands between."""
    if not subjects:
        return []
    held = connection.execute(
        select(findings.c.body, findings.c.received_ms)
        .distinct()
        .join(finding_subjects, finding_subjects.c.finding == findings.c.number)
        .where(and_(findings.c.closed_ms.is_(None), finding_subjects.c.subject.in_([name[:MAX_SUBJECT] for name in subjects])))
    )
    return [(read(row.body), row.received_ms) for row in held]


def close(database: Database, connection: Connection, finding_id: str, by: str, at_ms: int) -> bool:
    """Close one; false if it is not there or closed already."""
    done = connection.execute(
        update(findings).where(and_(findings.c.id == finding_id, findings.c.closed_ms.is_(None))).values(closed_ms=at_ms, closed_by=by)
    )
    if done.rowcount:
        database.touch(connection, TOPIC)
    return bool(done.rowcount)


class Kept(NamedTuple):
    """A finding as people see it."""

    body: str
    received_ms: int
    closed_ms: int | None
    closed_by: str | None
    number: int


def listed(
    connection: Connection, *, subject: str | None = None, open_only: bool = True, limit: int = 100, before: int | None = None
) -> list[Kept]:
    """Findings, newest first; `before` is the number of the last one of the page before."""
    columns = (findings.c.body, findings.c.received_ms, findings.c.closed_ms, findings.c.closed_by, findings.c.number)
    query = select(*columns).order_by(findings.c.number.desc()).limit(limit)
    if subject is not None:
        named = select(finding_subjects.c.finding).where(finding_subjects.c.subject == subject[:MAX_SUBJECT])
        query = query.where(findings.c.number.in_(named))
    if open_only:
        query = query.where(findings.c.closed_ms.is_(None))
    if before is not None:
        query = query.where(findings.c.number < before)
    return [Kept(*row) for row in connection.execute(query)]
