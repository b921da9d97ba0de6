"""Recorded decisions read back from the audit log, with the requests that stand beside the records until they are erased."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from aftergate.stores.tables.audit import audit_beside, audit_leaves

CHUNK = 500


def recorded(connection: Connection, since_ms: int = 0) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Id, request and facts of each recorded decision, oldest first. Those whose request was erased are not there any more."""
    after = -1
    while True:
        rows = connection.execute(
            select(audit_leaves.c.seq, audit_leaves.c.type, audit_leaves.c.body, audit_beside.c.body.label("request"))
            .join(audit_beside, audit_beside.c.seq == audit_leaves.c.seq)
            .where(
                audit_leaves.c.type.in_(["decision", "decision.batch"]),
                audit_beside.c.kind == "request",
                audit_leaves.c.ms >= since_ms,
                audit_leaves.c.seq > after,
            )
            .order_by(audit_leaves.c.seq)
            .limit(CHUNK)
        ).all()
        for row in rows:
            after = row.seq
            held = msgspec.json.decode(bytes(row.request))
            if row.type == "decision":
                leaf = msgspec.json.decode(bytes(row.body)) if row.body is not None else {}
                yield leaf.get("evaluation_id") or f"record {row.seq}", held["request"], held["facts"]
            else:
                for each in msgspec.json.decode(held["decisions"].encode()):
                    yield each["id"], each["request"], each["facts"]
        if len(rows) < CHUNK:
            return
