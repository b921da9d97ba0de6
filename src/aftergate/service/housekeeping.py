"""What is of no more use goes: used-once identifiers that could not be accepted any more, messages that were sent or given up long ago."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aftergate.service import outbox
from aftergate.stores import used

if TYPE_CHECKING:
    from aftergate.service.core import Ground

EVERY_MS: Final = 600_000
SPARE_MS: Final = 3_600_000  # another server's clock may lag behind this one's: what it still accepts must still be known
DAY_MS: Final = 86_400_000


class Housekeeping:
    """Called by the server's timer; does its round every ten minutes."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._next_ms = 0

    def tick(self, now_ms: int) -> None:
        """Raises: StoreUnavailable; the next tick tries again."""
        if now_ms < self._next_ms:
            return
        with self._ground.db.write() as connection:
            used.forget(connection, now_ms - SPARE_MS)
            outbox.forget(connection, now_ms - self._ground.settings.keep_sessions_days * DAY_MS)
        self._next_ms = now_ms + EVERY_MS
