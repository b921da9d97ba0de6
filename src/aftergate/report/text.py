"""Text for the page: what stands in a log is hostile, so everything that is shown goes through `esc`."""

from __future__ import annotations

import html
import unicodedata
from typing import Final

from aftergate.events.clock import to_iso

MINUTE: Final = 60_000
HOUR: Final = 3_600_000
DAY: Final = 86_400_000
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def clean(text: str) -> str:
    """Text without control, direction-changing and lone surrogate characters: they could hide or reorder what an analyst reads."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if c in "\t\n\r" else "\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)


def esc(text: object) -> str:
    """Safe in HTML text and in a double-quoted attribute."""
    return html.escape(clean(str(text)), quote=True)


def short(text: str, limit: int = 36) -> str:
    """At most `limit` characters: the middle is left out, since both ends of an id tell it apart."""
    text = clean(text)
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"


def number(value: float) -> str:
    """`12,345`."""
    return f"{value:,.0f}"


def plural(count: int, one: str, many: str = "") -> str:
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def stamp(ms: int, *, seconds: bool = False) -> str:
    """`2026-03-02 08:00`, UTC."""
    return to_iso(ms)[: 19 if seconds else 16].replace("T", " ")


def clock(ms: int, *, seconds: bool = False) -> str:
    """`08:00`, UTC."""
    return to_iso(ms)[11 : 19 if seconds else 16]


def day(ms: int, *, year: bool = False) -> str:
    """`2 Mar`."""
    iso = to_iso(ms)
    text = f"{int(iso[8:10])} {_MONTHS[int(iso[5:7]) - 1]}"
    return f"{text} {iso[:4]}" if year else text


def time_tag(ms: int, *, seconds: bool = False) -> str:
    return f'<time datetime="{to_iso(ms)}">{stamp(ms, seconds=seconds)}</time>'


def stretch(first: int, last: int) -> str:
    """A span of time as two times, the second without the date where it is the same."""
    a, b = stamp(first), stamp(last)
    if a == b:
        return a
    return f"{a} – {b[11:]}" if a[:10] == b[:10] else f"{a} – {b}"


def lasting(ms: int) -> str:
    """`45 s`, `12 min`, `3 h`, `9 d`, `2 y`."""
    if ms >= 365 * DAY:
        return f"{ms / (365 * DAY):.1f} y"
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1000, "s")):
        if ms >= size:
            return f"{round(ms / size)} {unit}"
    return "<1 s"


def size(count: float) -> str:
    """Bytes as `3.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return ""
