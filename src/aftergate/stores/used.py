"""What may come once: identifiers of proofs, tokens and assertions."""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, delete

from aftergate.stores.database import Database
from aftergate.stores.tables.base import used_ids


def first_use(database: Database, connection: Connection, kind: str, identifier: str, until_ms: int) -> bool:
    """Whether this is the first time; remembered until `until_ms`. Of two at the same moment exactly one is told yes: the key is unique."""
    digest = hashlib.sha256(f"{kind}\0{identifier}".encode()).digest()
    statement = (
        database.insert(used_ids).values(digest=digest, until_ms=until_ms).on_conflict_do_nothing(index_elements=[used_ids.c.digest])
    )
    # An INSERT's row count is kept only on request: without it PostgreSQL's driver says -1.
    return connection.execute(statement.execution_options(preserve_rowcount=True)).rowcount == 1


def forget(connection: Connection, now_ms: int) -> int:
    """Drop what could not be accepted any more."""
    return connection.execute(delete(used_ids).where(used_ids.c.until_ms < now_ms)).rowcount
