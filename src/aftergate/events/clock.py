"""Event times: text and numbers to milliseconds since 1970 UTC, fast. Nothing here reads a clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from aftergate.errors import Reject

_FIRST = -62_135_596_800_000  # year 1
_LAST = 253_402_300_799_999  # year 9999
HOURS: Final[dict[str, int]] = {}  # `2026-10-21T06` to its milliseconds. A cache, filled by from_iso: a log repeats its hours
COLON: Final = 58
ZULU: Final = 90
SPACE: Final = 32
HOURS_MAX: Final = 50_000  # entries; the cache is emptied when it reaches them
_SHAPE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|\+00:00)\Z")


def from_iso(text: str) -> int:
    """Milliseconds of an ISO 8601 time; without a zone it is UTC. Finer than a millisecond is cut off.

    Raises: Reject, if the text is no time. Of the usual form, only the hour is looked up.
    """
    hour = HOURS.get(text[:13])
    size = len(text)
    if hour is not None and size >= 19 and ord(text[13]) == COLON and ord(text[16]) == COLON:
        minute, second = two_digits(text, 14), two_digits(text, 17)
        if 0 <= minute < 60 and 0 <= second < 60:
            time = hour + (minute * 60 + second) * 1000
            if size == 20 and ord(text[19]) == ZULU:
                return time
            rest = text[19:]
            if rest == "Z" or not rest:
                return time
            if rest[0] == "." and (rest[-1] == "Z" or rest[-6:] == "+00:00"):
                digits = rest[1:4]
                if digits.isdecimal() and digits.isascii():
                    return time + int(digits)
    return _slow(text)


def two_digits(text: str, at: int) -> int:
    """The number that two ASCII digits make; negative if they are none. Compiled, this is some shifts, where a look-up makes and hashes a text."""
    tens, ones = ord(text[at]) - 48, ord(text[at + 1]) - 48
    return tens * 10 + ones if 0 <= tens <= 9 and 0 <= ones <= 9 else -1


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
    result = int(stamp // 1) * 1000 + moment.microsecond // 1000
    if _SHAPE.match(text):
        if len(HOURS) >= HOURS_MAX:
            HOURS.clear()
        HOURS[text[:13]] = result // 3_600_000 * 3_600_000
    return result


_us_days: Final[dict[str, int]] = {}
_MONTHS: Final = {name: f"{number:02d}" for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}


def from_us_text(text: str) -> int | None:
    """Milliseconds of `Oct 21, 2026, 6:06:25 AM` (UTC), as AWS writes the end of a session, or of an ISO time; None if it is neither."""
    day, _, clock = text.rpartition(", ")
    midnight = _us_days.get(day)
    if midnight is None:
        midnight = _us_day(day)
        if midnight is None:
            try:
                return from_iso(text)
            except Reject:
                return None
        _us_days[day] = midnight
    size = len(clock)
    if (size == 10 or size == 11) and ord(clock[-6]) == COLON and ord(clock[-9]) == COLON and ord(clock[-3]) == SPACE:
        tens = size - 10  # whether the hour has two digits
        hour = two_digits(clock, 0) if tens else ord(clock[0]) - 48
        minute, second = two_digits(clock, 2 + tens), two_digits(clock, 5 + tens)
        if 0 <= hour <= 99 and minute >= 0 and second >= 0 and (tens or hour <= 9):
            return midnight + ((hour % 12 + (12 if clock[-2:] == "PM" else 0)) * 3600 + minute * 60 + second) * 1000
    try:
        hours = int(clock[:-9]) % 12 + (12 if clock[-2:] == "PM" else 0)
        return midnight + (hours * 3600 + int(clock[-8:-6]) * 60 + int(clock[-5:-3])) * 1000
    except ValueError:
        return None


def _us_day(text: str) -> int | None:
    parts = text.replace(",", " ").split()
    try:
        month, day, year = parts
        return from_iso(f"{int(year):04d}-{_MONTHS[month]}-{int(day):02d}T00:00:00Z")
    except (ValueError, KeyError, Reject):
        return None


def from_epoch(value: int | float | bool) -> int:  # compiled, `float` alone would make a number of True before it is looked at
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
    """`2026-02-16T10:00:04.476Z`; whole seconds print without a fraction. What lies outside the years 1 to 9999 prints as their end."""
    ms = min(max(ms, _FIRST), _LAST)
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") if moment.year >= 1000 else moment.isoformat()[:19]
    return f"{text}.{ms % 1000:03d}Z" if ms % 1000 else f"{text}Z"
