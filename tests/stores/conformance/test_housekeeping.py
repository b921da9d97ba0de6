"""What grows with every request is cut back, and nothing that still matters goes."""

from __future__ import annotations

from sqlalchemy import func, insert, select

from aftergate.service import outbox
from aftergate.service.core import Ground
from aftergate.service.housekeeping import EVERY_MS, SPARE_MS, Housekeeping
from aftergate.stores.tables import base
from aftergate.stores.used import first_use

DAY_MS = 86_400_000


def test_identifiers_go_once_nobody_could_accept_them(ground: Ground) -> None:
    now = ground.clock()
    with ground.db.write() as connection:
        for name, until in (("spent", now - SPARE_MS - 1), ("just over", now - 1), ("alive", now + 60_000)):
            assert first_use(ground.db, connection, "jti", name, until)
    keeping = Housekeeping(ground)
    keeping.tick(now)
    with ground.db.write() as connection:
        again = [first_use(ground.db, connection, "jti", name, now + 60_000) for name in ("spent", "just over", "alive")]
    assert again == [True, False, False]


def test_messages_go_when_they_are_old_and_done_with(ground: Ground) -> None:
    now = ground.clock()
    old = now - (ground.settings.keep_sessions_days + 1) * DAY_MS

    def message(kind: str, created: int, *, failed: bool = False, sent: int | None = None) -> dict[str, object]:
        return {"kind": kind, "body": "{}", "created_ms": created, "next_ms": created, "attempts": 1, "failed": failed, "sent_ms": sent}

    rows = [
        message("callback", old, sent=old), message("callback", old, failed=True), message("notice", old),  # go
        message("callback", old), message("callback", now, sent=now), message("callback", now, failed=True), message("notice", now),  # stay
    ]  # fmt: skip
    with ground.db.write() as connection:
        connection.execute(insert(base.outbox), rows)
    keeping = Housekeeping(ground)
    keeping.tick(now)
    with ground.db.read() as connection:
        assert connection.execute(select(func.count()).select_from(base.outbox)).scalar() == 4
        assert outbox.counts(connection) == [("callback", "failed", 1), ("callback", "waiting", 1)]
    with ground.db.write() as connection:
        connection.execute(insert(base.outbox), [message("notice", old)])
    keeping.tick(now + EVERY_MS - 1)
    with ground.db.read() as connection:
        assert connection.execute(select(func.count()).select_from(base.outbox)).scalar() == 5
