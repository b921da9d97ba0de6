"""Event times: text and numbers to milliseconds since 1970 UTC, fast. Nothing here reads a clock."""

from __future__ import annotations

from datetime import UTC, datetime

from aftergate.errors import Reject

_minutes: dict[str, int] = {}
_SECONDS = {f"{s:02d}Z": s * 1000 for s in range(60)}
_FIRST = -62_135_596_800_000  # year 1
_LAST = 253_402_300_799_999  # year 9999


def from_iso(text: str) -> int:
    """Milliseconds of an ISO 8601 time; without a zone it is UTC.

    Raises: Reject, if the text is no time. The minute is cached, since neighbours in a log share it.
    """
    base = _minutes.get(text[:17])
    if base is not None:
        second = _SECONDS.get(text[17:])
        if second is not None:
            return base + second
        if text[-1] == "Z":
            try:
                second = int(float(text[17:-1]) * 1000 + 0.0001)
            except (ValueError, OverflowError):
                second = -1
            if 0 <= second < 60_000:
                return base + second
    return _slow(text)


def _slow(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise Reject(f"`{str(text)[:40]}` is not a time") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        stamp = moment.timestamp()
    except (OverflowError, ValueError):
        raise Reject(f"`{text[:40]}` is out of range") from None
    result = round(stamp * 1_000_000) // 1000
    if text[-1:] == "Z" and len(text) >= 20 and text[16] == ":" and text[10] in "Tt ":
        if len(_minutes) > 100_000:
            _minutes.clear()
        _minutes[text[:17]] = int(moment.replace(second=0, microsecond=0).timestamp()) * 1000
    return result


def from_epoch(value: float) -> int:
    """Milliseconds of a Unix time in seconds, milliseconds or microseconds, told apart by size.

    Raises: Reject, if it is outside the years 1 to 9999 or not a number.
    """
    if value != value or isinstance(value, bool):
        raise Reject("time is not a number")
    size = abs(value)
    result = value * 1000 if size < 1e11 else value if size < 1e14 else value / 1000
    if not _FIRST <= result <= _LAST:
        raise Reject(f"time {value} is out of range")
    return int(result)


def to_iso(ms: int) -> str:
    """`2026-02-16T10:00:04.476Z`; whole seconds print without a fraction."""
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") if moment.year >= 1000 else moment.isoformat()[:19]
    return f"{text}.{ms % 1000:03d}Z" if ms % 1000 else f"{text}Z"
