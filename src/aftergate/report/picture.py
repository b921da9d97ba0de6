"""Drawings as inline SVG. No style attributes: the page's content policy forbids them, so looks come from classes in style.css."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from aftergate.report.axis import CUT_LEAST, Axis, make_axis
from aftergate.report.lifeline import LIFE_ROW, MARKS, WIDTH, Lifeline, Mark
from aftergate.report.text import DAY, MINUTE, clock, day, esc, lasting, number, plural, stamp
from aftergate.vocabulary import SEVERITIES

HEAD: Final = 44.0  # room for flags
LANE: Final = 64.0
FOOT: Final = 40.0


def n(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.1f}".removesuffix(".0")


def _diamond(x: float, y: float, r: float) -> str:
    return f'<path d="M{n(x)} {n(y - r)}L{n(x + r)} {n(y)}L{n(x)} {n(y + r)}L{n(x - r)} {n(y)}Z"/>'


def _square(x: float, y: float, r: float) -> str:
    return f'<rect x="{n(x - r + 1)}" y="{n(y - r + 1)}" width="{n(2 * r - 2)}" height="{n(2 * r - 2)}" rx="1.5"/>'


def _circle(x: float, y: float, r: float) -> str:
    return f'<circle cx="{n(x)}" cy="{n(y)}" r="{n(r - 1)}"/>'


def _triangle(x: float, y: float, r: float) -> str:
    return f'<path d="M{n(x)} {n(y - r)}L{n(x + r)} {n(y + r - 1)}L{n(x - r)} {n(y + r - 1)}Z"/>'


def _cross(x: float, y: float, r: float) -> str:
    a, b, c, d = n(x - r + 1), n(x + r - 1), n(y - r + 1), n(y + r - 1)
    return f'<path d="M{a} {c}L{b} {d}M{b} {c}L{a} {d}"/>'


def _turn(x: float, y: float, r: float) -> str:
    """An open circle with an arrow head."""
    q = r - 1
    return (
        f'<path d="M{n(x + q)} {n(y)}A{n(q)} {n(q)} 0 1 1 {n(x)} {n(y - q)}"/>'
        f'<path class="tip" d="M{n(x - 0.5)} {n(y - q - 3)}L{n(x + 4)} {n(y - q)}L{n(x - 0.5)} {n(y - q + 3)}Z"/>'
    )


def _barred(x: float, y: float, r: float) -> str:
    """A ring with a bar through it."""
    q = r - 1
    return f'<circle cx="{n(x)}" cy="{n(y)}" r="{n(q)}"/><path d="M{n(x - q * 0.7)} {n(y + q * 0.7)}L{n(x + q * 0.7)} {n(y - q * 0.7)}"/>'


_SHAPES: Final[dict[str, Callable[[float, float, float], str]]] = {
    "sign_in": _square,
    "issue": _diamond,
    "refresh": _turn,
    "use": _circle,
    "change": _triangle,
    "end": _cross,
    "failed": _barred,
}


def legend(kinds: Sequence[str], *, flags: bool, aside: bool = False) -> str:
    """What the shapes mean: those that occur."""
    open_glyph = '<svg class="glyph" viewBox="0 0 16 16" aria-hidden="true">'
    rows = [f'<li>{open_glyph}<g class="m {kind}">{_SHAPES[kind](8, 8, 6)}</g></svg>{MARKS[kind]}</li>' for kind in kinds]
    if aside:
        rows.append(
            f'<li>{open_glyph}<g class="m use aside">{_circle(8, 8, 6)}</g></svg>faint: other credentials of the same identity</li>'
        )
    if flags:
        rows.append(
            f'<li>{open_glyph}<circle class="halo" cx="8" cy="8" r="6.5"/><circle class="dot" cx="8" cy="8" r="3"/></svg>a finding rests on it</li>'
        )
        rows.append(f'<li>{open_glyph}<path class="flag" d="M3 1h10v9l-5 5l-5-5Z"/></svg>finding, by number</li>')
    return f'<ul class="legend">{"".join(rows)}</ul>'


def life_picture(life: Lifeline, label: str) -> str:
    """The life of a credential: time from left to right, a lane for each place and program."""
    bottom = HEAD + LANE * len(life.lanes)
    height = bottom + FOOT + (14 if any(s.gap >= CUT_LEAST for s in life.axis.segments) else 0)
    out = [f'<svg class="life" viewBox="0 0 {n(WIDTH)} {n(height)}" role="group" tabindex="0" aria-label="{esc(label)}">']
    many = len(life.axis.segments) > 1
    for segment in life.axis.segments:
        if segment.focus and many:
            out.append(
                f'<rect class="focus" x="{n(segment.x0 - 6)}" y="{n(HEAD - 8)}" width="{n(segment.x1 - segment.x0 + 12)}" height="{n(bottom - HEAD + 8)}" rx="4"/>'
            )
    for index in range(len(life.lanes)):
        y = HEAD + LANE * index
        middle = y + 42
        out.append(f'<line class="rail" x1="8" y1="{n(middle)}" x2="{n(WIDTH - 8)}" y2="{n(middle)}"/>')
        if index:
            out.append(f'<line class="between" x1="0" y1="{n(y)}" x2="{n(WIDTH)}" y2="{n(y)}"/>')
    out.append(_scale(life.axis, bottom))
    out.extend(f'<line class="stem" x1="{n(flag.x)}" y1="26" x2="{n(flag.x)}" y2="{n(bottom)}"/>' for flag in life.flags)
    for index, lane in enumerate(life.lanes):
        y = HEAD + LANE * index
        program = f'<tspan class="program" dx="10">{esc(_fit(lane.program, 118 - len(lane.place)))}</tspan>' if lane.program else ""
        out.append(
            f'<text class="lane{" hot" if lane.flagged else ""}" x="8" y="{n(y + 16)}"><tspan class="place">{esc(lane.place)}</tspan>{program}</text>'
        )
        marks = sorted(lane.marks, key=lambda m: (m.flagged, not m.aside, m.first, m.kind))
        rows = {row: [m for m in marks if (m.kind in LIFE_ROW) is row] for row in (True, False)}
        for mark in marks:
            above = mark.kind in LIFE_ROW
            out.append(_mark(mark, y + (33 if above else 49), _crowded(mark, rows[above])))
    for flag in life.flags:
        text = _ranges(flag.numbers)
        half = max(10.0, 4 + 3.4 * len(text))
        x = min(max(flag.x, half + 2), WIDTH - half - 2)
        out.append(
            f'<g class="pin" tabindex="-1" role="img"><title>{esc(flag.text)}</title>'
            f'<path class="flag" d="M{n(x - half)} 4h{n(2 * half)}v16h{n(-(half - 5))}l-5 6l-5-6h{n(-(half - 5))}Z"/>'
            f'<text class="pinned" x="{n(x)}" y="16.5" text-anchor="middle">{text}</text></g>'
        )
    out.append("</svg>")
    return "".join(out)


def _fit(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(room - 1, 8)] + "…"


def _ranges(numbers: Sequence[int]) -> str:
    """`1`, `1–3`, `1, 4`, `1–9 …`."""
    ordered = sorted(numbers)
    if len(ordered) == 1:
        return str(ordered[0])
    if ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]}–{ordered[-1]}"
    return ", ".join(map(str, ordered)) if len(ordered) <= 3 else f"{ordered[0]}, {ordered[1]} …"


def _crowded(mark: Mark, row: Sequence[Mark]) -> bool:
    """Is there another mark where this one's number would stand?"""
    left = mark.x1 + mark.shift + 6
    for other in row:
        start, end = other.x0 + other.shift - 10, other.x1 + other.shift + 10
        if other is not mark and start < left + 32 and (end + (28 if other.count > 1 and other.x0 <= mark.x0 else 0)) > left:
            return True
    return False


def _mark(mark: Mark, y: float, crowded: bool) -> str:
    shape = _SHAPES[mark.kind]
    wide = mark.x1 - mark.x0 > 6
    text = esc(mark.text())
    x0, x1 = mark.x0 + mark.shift, mark.x1 + mark.shift
    parts = [f'<g class="m {mark.kind}{" aside" if mark.aside else ""}" tabindex="-1" role="img"><title>{text}</title>']
    if mark.flagged:
        left, right = x0 - 9.5, x1 + 9.5
        parts.append(f'<rect class="halo" x="{n(left)}" y="{n(y - 9.5)}" width="{n(right - left)}" height="19" rx="9.5"/>')
    if wide:
        parts.append(f'<rect class="run" x="{n(x0)}" y="{n(y - 2.5)}" width="{n(x1 - x0)}" height="5" rx="2.5"/>')
    radius = 6.0 if mark.count == 1 else 7.0
    parts.append(shape((x0 + x1) / 2 if wide else x0, y, radius))
    if mark.count > 1 and not crowded:
        x = x1 + (11 if mark.flagged else 9)
        if x < WIDTH - 24:
            parts.append(f'<text class="count" x="{n(x)}" y="{n(y + 3.5)}">×{number(mark.count)}</text>')
    parts.append("</g>")
    return "".join(parts)


def _scale(axis: Axis, y: float) -> str:
    """Ticks and their labels; zigzags where quiet time was cut out."""
    out: list[str] = [f'<line class="base" x1="0" y1="{n(y)}" x2="{n(WIDTH)}" y2="{n(y)}"/>']
    before = None
    dated = ""
    last_label = -100.0
    last_day = -100.0
    for segment in axis.segments:
        if before is not None:
            middle = (before.x1 + segment.x0) / 2
            if segment.gap >= CUT_LEAST:
                zig = f"M{n(middle - 3)} {n(y + 8)}l6 -6l-6 -6l6 -6"
                out.append(f'<path class="cut" d="{zig}"/><path class="quiet" d="M{n(middle)} {n(HEAD - 4)}V{n(y - 12)}"/>')
                out.append(f'<text class="gap" x="{n(middle)}" y="{n(y + 47)}" text-anchor="middle">{lasting(segment.gap)} quiet</text>')
            else:
                out.append(f'<path class="quiet" d="M{n(middle)} {n(HEAD - 8)}V{n(y)}"/>')
        step = segment.step(64)
        ticks = segment.ticks(64)
        fine = step < MINUTE
        if not ticks or segment.x1 - segment.x0 < 70:
            ticks = [segment.t0]
        for t in ticks:
            x = segment.x(t)
            out.append(f'<line class="tick" x1="{n(x)}" y1="{n(y)}" x2="{n(x)}" y2="{n(y + 5)}"/>')
            daily = step >= DAY and len(ticks) > 1
            text = day(t) if daily else clock(t, seconds=fine)
            half = 25 if fine else 18
            if x - last_label >= 2 * half + 10:
                out.append(f'<text class="at" x="{n(min(max(x, half), WIDTH - half))}" y="{n(y + 18)}" text-anchor="middle">{text}</text>')
                last_label = x
            date = stamp(t)[:10] if not daily else stamp(t)[:4]
            if date != dated and x - last_day >= 84 and not (segment.gap and x - segment.x0 < 0):
                at = min(max(x, 34), WIDTH - 34)
                out.append(
                    f'<text class="date" x="{n(at)}" y="{n(y + 32)}" text-anchor="middle">{day(t, year=True) if not daily else date}</text>'
                )
                last_day = x
                dated = date
        before = segment
    return "".join(out)


def ring(value: int, *, large: bool = False) -> str:
    """Trust as a ring that is full at 100, with the number in it."""
    value = max(0, min(100, value))
    around = 2 * 3.14159 * 15.5
    level = "low" if value < 40 else "mid" if value < 75 else "good"
    return (
        f'<svg class="ring{" large" if large else ""}" viewBox="0 0 40 40" role="img" aria-label="trust {value} of 100"><title>trust {value} of 100</title>'
        f'<circle class="track" cx="20" cy="20" r="15.5"/>'
        f'<circle class="arc {level}" cx="20" cy="20" r="15.5" transform="rotate(-90 20 20)" stroke-dasharray="{n(around * value / 100)} 200"/>'
        f'<text x="20" y="24.5" text-anchor="middle">{value}</text></svg>'
    )


def bar(share: float, kind: str = "", part: float | None = None) -> str:
    """A bar that fills `share` of its cell (0 to 1); `part` of the whole cell is drawn stronger."""
    width = max(0.0, min(1.0, share)) * 100
    width = max(width, 0.8) if share > 0 else 0.0
    inner = f'<rect class="part" x="0" y="0" width="{n(max(0.0, min(1.0, part)) * 100)}" height="8"/>' if part is not None else ""
    return (
        f'<svg class="bar {kind}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="bed" width="100" height="8"/>'
        f'<rect class="fill" x="0" y="0" width="{n(width)}" height="8"/>{inner}</svg>'
    )


def over_time(points: Sequence[tuple[int, str]], label: str) -> str:
    """Findings over time, stacked by severity: (time, severity) in order of time. Quiet stretches are cut out."""
    width, height, top = 720.0, 150.0, 14.0
    axis = make_axis([t for t, _ in points], 6, width - 6)
    bins: list[tuple[float, float, int, int, dict[str, int]]] = []
    for segment in axis.segments:
        count = max(1, min(24, int((segment.x1 - segment.x0) / 15)))
        each = (segment.x1 - segment.x0) / count
        length = max(segment.t1 - segment.t0, 1) / count
        held: list[dict[str, int]] = [{} for _ in range(count)]
        for t, severity in points:
            if segment.t0 <= t <= segment.t1:
                place = min(count - 1, int((t - segment.t0) / length))
                held[place][severity] = held[place].get(severity, 0) + 1
        for place, counts in enumerate(held):
            start = segment.t0 + int(place * length)
            bins.append((segment.x0 + place * each, each, start, segment.t0 + int((place + 1) * length), counts))
    most = max((sum(b[4].values()) for b in bins), default=1) or 1
    scale = (height - top) / most
    out = [f'<svg class="over" viewBox="0 0 {n(width)} {n(height + 34)}" role="img" aria-label="{esc(label)}"><title>{esc(label)}</title>']
    for share in (1.0, 0.5):
        y = height - most * scale * share
        if share == 1.0 or most >= 4:
            out.append(f'<line class="grid" x1="0" y1="{n(y)}" x2="{n(width)}" y2="{n(y)}"/>')
            out.append(f'<text class="at" x="0" y="{n(y - 3)}">{number(most * share)}</text>')
    for x, each, start, end, counts in bins:
        if not counts:
            continue
        y = height
        text = f"{stamp(start)} – {stamp(end)} UTC: " + ", ".join(f"{counts[s]} {s}" for s in reversed(SEVERITIES) if s in counts)
        out.append(f"<g><title>{text}</title>")
        wide = min(each, 26.0)
        for severity in reversed(SEVERITIES):
            if severity in counts:
                tall = counts[severity] * scale
                y -= tall
                out.append(
                    f'<rect class="sev-{severity}" x="{n(x + (each - wide) / 2 + 1)}" y="{n(y)}" width="{n(max(wide - 2, 2))}" height="{n(max(tall - 1, 1))}" rx="1.5"/>'
                )
        out.append("</g>")
    out.append(f'<line class="base" x1="0" y1="{n(height)}" x2="{n(width)}" y2="{n(height)}"/>')
    before = None
    last = -100.0
    for segment in axis.segments:
        middle = (segment.x0 + segment.x1) / 2
        if before is not None and segment.gap:
            at = (before.x1 + segment.x0) / 2
            out.append(f'<path class="cut" d="M{n(at - 3)} {n(height + 6)}l6 -6l-6 -6"/>')
        text = day(segment.t0, year=True)
        if middle - last >= 76:
            out.append(
                f'<text class="at" x="{n(min(max(middle, 36), width - 36))}" y="{n(height + 17)}" text-anchor="middle">{text}</text>'
            )
            last = middle
        before = segment
    cut = sum(s.gap for s in axis.segments)
    if cut:
        out.append(
            f'<text class="gap" x="{n(width)}" y="{n(height + 32)}" text-anchor="end">{lasting(cut)} without findings cut out</text>'
        )
    out.append("</svg>")
    return "".join(out)


def summary_of(life: Lifeline) -> str:
    """The picture in a sentence, for those who do not see it."""
    flagged = [lane.place for lane in life.lanes if lane.flagged]
    text = f"{plural(life.events, 'event')} in {plural(len(life.lanes), 'lane')} of place and program"
    return text + (f"; findings rest on events from {'; '.join(flagged[:4])}" if flagged else "")
