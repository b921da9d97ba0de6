"""Events of many inputs into one order: by time, source and id, whatever order they came in.

Events wait until nothing earlier can come: an input that rises in time holds back `lateness_ms`; an input that does not, and one not yet begun,
holds back everything from its first event on. So any shuffle within the allowed lateness gives the same order.
"""

from __future__ import annotations

from operator import attrgetter

from aftergate.vocabulary import Event

_KEY = attrgetter("time", "id", "part")
LATENESS_MS = 48 * 3_600_000
LEAD = 1000  # the first event of a record has a part that is a multiple of this: so records are counted once


class Sequencer:
    """Holds events back until their turn, and drops duplicates (same source, id, part and time)."""

    def __init__(self, lateness_ms: int = LATENESS_MS) -> None:
        self.lateness_ms = lateness_ms
        self.duplicates = 0
        self.late = 0
        self._held: list[Event] = []
        self._released = -(1 << 62)  # no event at or before this may come any more
        self._tail: dict[tuple[str, str, int], int] = {}  # ids at the release boundary

    def add(self, events: list[Event]) -> None:
        self._held.extend(events)

    def __len__(self) -> int:
        return len(self._held)

    def release(self, watermark: int | None) -> list[Event]:
        """All events before `watermark` (None: all), in order and without duplicates."""
        held = self._held
        held.sort(key=_KEY)
        if watermark is None:
            out, self._held = held, []
        else:
            low, high = 0, len(held)
            while low < high:
                middle = (low + high) // 2
                if held[middle].time < watermark:
                    low = middle + 1
                else:
                    high = middle
            out, self._held = held[:low], held[low:]
        return self._unique(out, watermark)

    def _unique(self, events: list[Event], watermark: int | None) -> list[Event]:
        kept: list[Event] = []
        add = kept.append
        before: Event | None = None
        released = self._released
        for event in events:
            if before is not None and event.time == before.time and event.id == before.id and self._same(kept, event):
                self.duplicates += event.part % LEAD == 0
                continue
            if event.time < released:
                # later than allowed: tracked all the same, and counted
                self.late += 1
            add(event)
            before = event
        if watermark is not None:
            self._released = max(released, watermark)
        return kept

    @staticmethod
    def _same(kept: list[Event], event: Event) -> bool:
        for other in reversed(kept):
            if other.time != event.time or other.id != event.id:
                return False
            if other.part == event.part and other.shape.source == event.shape.source:
                return True
        return False
