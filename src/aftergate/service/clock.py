"""The server's clock: one that cannot be turned back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

AHEAD_MS: Final = 1_000


class Clock:
    """Milliseconds since 1970, which never go back and never stand still.

    The wall clock sets it at the start and may push it ahead; from there the machine's monotonic clock carries it. A wall clock that
    is turned back therefore neither revives what has expired nor holds up what should expire; `behind_ms` says by how much it lags.
    """

    def __init__(
        self,
        not_before_ms: int = 0,
        wall: Callable[[], float] = time.time,  # noqa: TID251  the one place that reads it
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._base = max(int(wall() * 1000), not_before_ms)
        self._from = steady()

    def __call__(self) -> int:
        carried = self._base + int((self._steady() - self._from) * 1000)
        wall = int(self._wall() * 1000)
        if wall > carried + AHEAD_MS:
            self._base, self._from = wall, self._steady()
            return wall
        return carried

    def at_least(self, ms: int) -> None:
        """Go on from here if the clock stands before it: the log has seen that time already."""
        if self() < ms:
            self._base, self._from = ms, self._steady()

    @property
    def behind_ms(self) -> int:
        """How far the wall clock lags; above a second it has been turned back."""
        return max(0, self() - int(self._wall() * 1000))
