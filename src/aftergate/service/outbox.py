"""Messages to people and systems: what waits, what was given up, and trying that again.

Who writes a message also sends it (`aftergate.service.callbacks`); this is what an operator sees and does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, case, delete, func, or_, select, update

from aftergate.stores.tables.base import outbox

QUIET: Final = ("notice",)  # kinds that are read on a page and never sent
WAITING: Final = "waiting"
FAILED: Final = "failed"


def counts(connection: Connection) -> list[tuple[str, str, int]]:
    """How many messages of each kind wait or were given up."""
    state = case((outbox.c.failed.is_(True), FAILED), else_=WAITING)
    query = (
        select(outbox.c.kind, state.label("state"), func.count().label("count"))
        .where(and_(outbox.c.sent_ms.is_(None), outbox.c.kind.not_in(QUIET)))
        .group_by(outbox.c.kind, state)
        .order_by(outbox.c.kind, state)
    )
    return [(kind, held, count) for kind, held, count in connection.execute(query)]


def listed(connection: Connection, *, failed: bool, limit: int = 100) -> Sequence[Any]:
    """Messages that were given up, or that wait; newest first. Their content is left out: it belongs to the request it tells of."""
    shown = (outbox.c.number, outbox.c.kind, outbox.c.created_ms, outbox.c.next_ms, outbox.c.attempts, outbox.c.problem)
    query = select(*shown).where(and_(outbox.c.sent_ms.is_(None), outbox.c.failed.is_(failed), outbox.c.kind.not_in(QUIET)))
    return connection.execute(query.order_by(outbox.c.number.desc()).limit(limit)).all()


def again(connection: Connection, number: int, now_ms: int) -> bool:
    """Try one that was given up from the beginning; false if there is none."""
    given_up = and_(outbox.c.number == number, outbox.c.failed.is_(True), outbox.c.sent_ms.is_(None))
    return connection.execute(update(outbox).where(given_up).values(failed=False, attempts=0, next_ms=now_ms)).rowcount == 1


def forget(connection: Connection, before_ms: int) -> int:
    """Drop old messages that were sent or given up, and old notices."""
    done = or_(outbox.c.sent_ms.is_not(None), outbox.c.failed.is_(True), outbox.c.kind.in_(QUIET))
    return connection.execute(delete(outbox).where(and_(outbox.c.created_ms < before_ms, done))).rowcount
