"""A time axis for stories: quiet stretches are cut out, and the stretch that matters gets the room."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from msgspec import Struct

from aftergate.report.text import DAY, HOUR, MINUTE

CUT_SHARE: Final = 0.14  # a gap is cut out when it takes more than this share of what is left
CUT_LEAST: Final = 20 * MINUTE
MOST_CUTS: Final = 6
CUT_WIDTH: Final = 44.0
_STEPS: Final = (
    1000, 5_000, 15_000, 30_000, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
    DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 91 * DAY, 365 * DAY,
)  # fmt: skip


class Segment(Struct):
    """One linear stretch. Times in milliseconds, positions in picture units."""

    t0: int
    t1: int
    focus: bool
    x0: float = 0.0
    x1: float = 0.0
    gap: int = 0  # quiet time cut out before this segment; 0: it joins the one before, at another scale

    def x(self, t: int) -> float:
        if self.t1 <= self.t0:
            return (self.x0 + self.x1) / 2
        return self.x0 + (self.x1 - self.x0) * (t - self.t0) / (self.t1 - self.t0)

    def step(self, room: float) -> int:
        """Milliseconds between ticks that are at least `room` units apart."""
        scale = max(self.t1 - self.t0, 1) / max(self.x1 - self.x0, 1.0)
        return next((s for s in _STEPS if s / scale >= room), _STEPS[-1])

    def ticks(self, room: float) -> list[int]:
        step = self.step(room)
        first = -(-self.t0 // step) * step
        return list(range(first, self.t1 + 1, step))[:60]


class Axis(Struct):
    """Segments from left to right."""

    segments: list[Segment]

    def x(self, t: int) -> float:
        for segment in self.segments:
            if t <= segment.t1:
                return segment.x(max(t, segment.t0))
        last = self.segments[-1]
        return last.x1


def make_axis(times: Sequence[int], left: float, right: float, focus: tuple[int, int] | None = None) -> Axis:
    """The axis for events at these times (sorted, at least one). `focus` is the stretch that matters: it gets most of the room if it is short."""
    first, last = times[0], times[-1]
    cuts = _cuts(times)
    borders: list[tuple[int, int]] = []  # (end of one segment, start of the next)
    borders.extend(cuts)
    if focus is not None:
        a, b = focus
        pad = max(MINUTE, (b - a) // 12)
        a, b = max(first, a - pad), min(last, b + pad)
        if last - first - sum(d - c for c, d in cuts) > 4 * max(b - a, 1):
            for edge in (a, b):
                inside_cut = any(c <= edge <= d for c, d in cuts)
                if first < edge < last and not inside_cut:
                    borders.append((edge, edge))
    else:
        a, b = first, last
    borders.sort()
    segments: list[Segment] = []
    start, gap = first, 0
    for end, following in [*borders, (last, last)]:
        if end >= start:
            middle = (start + end) // 2
            segments.append(Segment(start, max(end, start), a <= middle <= b, gap=gap))
        start, gap = following, following - end
    _place(segments, left, right)
    return Axis(segments)


def _cuts(times: Sequence[int]) -> list[tuple[int, int]]:
    """The greatest gaps, each as (last event before, first after), while a gap takes much of what is left."""
    gaps = sorted(((b - a, a, b) for a, b in pairwise(times) if b - a > CUT_LEAST), reverse=True)
    left = times[-1] - times[0]
    cuts: list[tuple[int, int]] = []
    for gap, a, b in gaps[:MOST_CUTS]:
        if gap <= CUT_SHARE * left:
            break
        cuts.append((a, b))
        left -= gap
    return cuts


def _place(segments: list[Segment], left: float, right: float) -> None:
    """Share the width: cuts have theirs, each segment a least one, and the rest goes by the root of its length, three times that in focus."""
    cut = min(CUT_WIDTH, (right - left) * 0.4 / max(len(segments), 1))
    room = (right - left) - cut * sum(s.gap > 0 for s in segments)
    least = min(56.0, room / len(segments))
    weights = [(max(s.t1 - s.t0, 0) ** 0.5) * (3.0 if s.focus else 1.0) for s in segments]
    total = sum(weights)
    spare = room - least * len(segments)
    x = left
    for segment, weight in zip(segments, weights, strict=True):
        if segment.gap > 0:
            x += cut
        segment.x0 = x
        x += least + spare * (weight / total if total else 1 / len(segments))
        segment.x1 = x
