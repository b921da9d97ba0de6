"""Events of many inputs into one order: by time and id, whatever order they came in.

Events wait until nothing earlier can come: an input that rises in time holds back `lateness_ms`; an input that does not, and one not yet begun,
holds back everything from its first event on. So any shuffle within the allowed lateness gives the same order. Where two records tell
different things under one time and id, their content decides, never which came first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from operator import attrgetter
from typing import Any

from aftergate.vocabulary import Event

_KEY = attrgetter("time", "id", "part")
_NAME = attrgetter("id", "part")
_TIME = attrgetter("time")
LATENESS_MS = 48 * 3_600_000
LEAD = 1000  # the first event of a record has a part that is a multiple of this: so records are counted once


class Sequencer:
    """Holds events back until their turn, and drops duplicates (same source, id, part and time)."""

    def __init__(self, lateness_ms: int = LATENESS_MS) -> None:
        self.lateness_ms = lateness_ms
        self.duplicates = 0
        self.late = 0
        self._held: list[Event] = []
        self._last: tuple[int, str, int] | None = None  # where the order has got to: what comes before it now is late

    def add(self, events: list[Event]) -> None:
        self._held.extend(events)

    def __len__(self) -> int:
        return len(self._held)

    def release(self, watermark: int | None) -> list[Event]:
        """All events before `watermark` (None: all), in order and without duplicates."""
        held = _by_time(self._held)
        cut = len(held) if watermark is None else bisect_left(held, watermark, key=_TIME)
        out, self._held = held[:cut], held[cut:]
        if not out:
            return out
        kept = self._unique(out)
        if self._last is not None and _KEY(kept[0]) <= self._last:
            # later than allowed: tracked all the same, and counted
            self.late += sum([_KEY(event) <= self._last for event in out])
        last = _KEY(kept[-1])
        self._last = last if self._last is None else max(last, self._last)
        return kept

    def _unique(self, events: list[Event]) -> list[Event]:
        """Of events sorted by time, in order, the first of each. Ties are rare, so only they are looked at closely."""
        kept: list[Event] = []
        add = kept.append
        first = 0
        size = len(events)
        before = events[0]
        for index in range(1, size):
            event = events[index]
            if event.time == before.time:
                continue
            if index - first == 1:
                add(before)
            else:
                kept += self._tied(events[first:index])
            first, before = index, event
        if size - first == 1:
            add(before)
        else:
            kept += self._tied(events[first:])
        return kept

    def _tied(self, events: list[Event]) -> list[Event]:
        """Of events of one time, in order, the first of each."""
        size = len(events)
        if size == 2 and events[0].id != events[1].id:  # most ties: two calls in one second
            return events if events[0].id < events[1].id else [events[1], events[0]]
        events.sort(key=_NAME)
        kept: list[Event] = []
        first = 0
        for index in range(1, size + 1):
            if index < size and events[index].id == events[first].id and events[index].part == events[first].part:
                continue
            kept += events[first:index] if index - first == 1 else self._settle(events[first:index])
            first = index
        return kept

    def _settle(self, tied: list[Event]) -> list[Event]:
        """Of events with one time, id and part: one of each source, chosen and ordered by content."""
        tied.sort(key=_content)
        kept = [tied[0]]
        for event in tied[1:]:
            if event.shape.source == kept[-1].shape.source:
                self.duplicates += event.part % LEAD == 0
            else:
                kept.append(event)
        return kept


def times_of(events: list[Event]) -> list[int]:
    """When they happened."""
    return [event.time for event in events]


def _rising(events: list[Event]) -> bool:
    """True when no event is earlier than the one before it: most logs are in order, and then there is nothing to sort."""
    before = events[0].time if events else 0
    for event in events:
        if event.time < before:
            return False
        before = event.time
    return True


def _by_time(events: list[Event]) -> list[Event]:
    """These events by time; those of one time stay in the order they are in.

    Mostly a few are late by a little: they are put where they belong, which takes a tenth of sorting all.
    """
    if _rising(events):
        return events
    found: list[Event] = []
    left = len(events) // 32  # that many out of order are cheaper to put in place than to sort
    newest = events[0].time
    for event in events:
        time = event.time
        if time >= newest:
            found.append(event)
            newest = time
            continue
        at = bisect_right(found, time, key=_TIME)
        left -= 1
        if left < 0 or len(found) - at > 10_000:
            return sorted(
                events, key=_TIME
            )  # whole numbers sort twice as fast as tuples; ids and parts decide only among events of one time
        found.insert(at, event)
    return found


def advance(times: list[int], newest: int | None, lateness_ms: int) -> tuple[int, bool]:
    """How far a part takes its input in time, and whether the input still rises, give or take the lateness.

    The latest tenth of a part's events does not count for the first, and a tenth that comes too late not against the second: a few
    records with a wrong clock neither push everything out nor hold everything back.
    """
    rising = sorted(times)
    reached = rising[(len(times) - 1) * 9 // 10]
    if newest is None or reached > newest:
        before = newest if newest is not None else times[0]
        newest = reached
    else:
        before = newest
    if rising[-1] - rising[0] > lateness_ms or rising[0] < before - lateness_ms:
        late = sum(
            min(high, newest) - time > lateness_ms for time, high in zip(times, accumulate(times, max, initial=before), strict=False)
        )
        return newest, late * 10 <= len(times)
    return newest, True


def _content(event: Event) -> tuple[Any, ...]:
    """What an event says, in an order that is the same in every run; the copy that the log had first comes first."""
    shape = event.shape
    return (
        shape.source,
        event.known_at or event.time,
        shape.action.name,
        shape.error or "",
        event.credential or "",
        event.session or "",
        event.target or "",
        event.size,
        repr((shape.actor, shape.origin, shape.agent)),
        repr((shape.client, shape.client_name, shape.resource, shape.device, shape.silent, shape.account)),
        repr(event.detail),
    )
