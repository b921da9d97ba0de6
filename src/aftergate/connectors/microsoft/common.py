"""What all Microsoft logs share: times, addresses with ports, JSON inside text, tenants that are Microsoft's own."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from aftergate.errors import Reject
from aftergate.events.clock import HOURS, from_iso, two_digits

# Microsoft Services and Microsoft's corporate tenant: owners of the first-party applications.
MICROSOFT_TENANTS: Final = frozenset({"f8cdef31-a31e-4b4a-93e4-5f571e91255a", "72f988bf-86f1-41af-91ab-2d7cd011db47"})

TEXT_MAX: Final = 300  # characters of a value kept for a person to read
CACHE_MAX: Final = 50_000  # entries; a cache that reaches it is emptied

_NOWHERE: Final = frozenset(["0.0.0.0", "::", "<null>", "null"])  # noqa: S104  (these logs mean "no address" by it)
UNREADABLE: Final = (UnicodeDecodeError, RecursionError)  # what msgspec raises, beside its own, for bytes that are no text and for nesting
_json = msgspec.json.Decoder()
_SECRET = ("password", "secret", "credential", "token", "certificate", "key", "sas")


_MILLIS: Final = {f".{part:03d}": part for part in range(1000)}
_UTC: Final = frozenset({"Z", "+00:00"})


def moment(text: str | None) -> int:
    """Milliseconds of a Microsoft time: ISO 8601, up to nine decimals, `Z`, `+00:00` or no zone (then UTC).

    Raises: Reject, if there is none or it is no time. Asked twice a record, so the usual form, seven decimals, has a way of its own.
    """
    if not text:
        raise Reject("the record has no time")
    if text[27:] in _UTC and text[23:27].isdigit():
        hour = HOURS.get(text[:13])
        part = _MILLIS.get(text[19:23])
        if hour is not None and part is not None and text[13] == ":" and text[16] == ":":
            minute, second = two_digits(text, 14), two_digits(text, 17)
            if 0 <= minute < 60 and 0 <= second < 60:
                return hour + (minute * 60 + second) * 1000 + part
    return from_iso(text[:-6] + "Z" if text[-6:] == "+00:00" else text)


def later(text: str | None, time: int) -> int:
    """`known_at`: when the log had a record, or 0 if it does not say, or not later than `time`."""
    if not text:
        return 0
    try:
        written = moment(text)
    except Reject:
        return 0
    return written if written > time else 0


def address(text: str | None) -> str | None:
    """An address without its port and brackets: `1.2.3.4:443`, `[2001:db8::1]:443`, `::ffff:1.2.3.4`."""
    if not text:
        return None
    if text[0] == "[":
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    if text[:7].lower() == "::ffff:" and "." in text:
        text = text[7:]
    return text if text and text not in _NOWHERE else None


def number(value: Any) -> int | None:
    """A whole number that fits 63 bits, also where the log writes it as text."""
    if isinstance(value, str) and 0 < len(value) < 20:
        try:
            value = int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if abs(value) < 1 << 63 else None


def text(value: Any) -> str | None:
    """A non-empty text, else None; numbers are written out."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def short(value: Any) -> str | None:
    """A value as short text for a person: JSON where it is not text."""
    if value is None:
        return None
    words: str = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return words if len(words) <= TEXT_MAX else words[: TEXT_MAX - 3] + "..."


def secretive(name: str) -> bool:
    """True for a parameter whose value may be a secret, by its name."""
    low = name.lower()
    return any(word in low for word in _SECRET)


def embedded(data: bytes) -> Any:
    """The value of a part that is JSON, or JSON inside text; None if absent or broken."""
    if not data:
        return None
    try:
        return loose(_json.decode(data))
    except (msgspec.DecodeError, *UNREADABLE):
        return None


def loose(value: Any) -> Any:
    """The value, and where it is JSON inside text, what that says."""
    if isinstance(value, str) and value[:1] in '[{"':
        try:
            return _json.decode(value)
        except (msgspec.DecodeError, *UNREADABLE):
            return value
    return value


def mapping(value: Any) -> dict[str, Any]:
    """The value as a JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def tenant_of(resource_id: str | None) -> str | None:
    """Tenant in an Azure Monitor resource id: `/tenants/ID/providers/Microsoft.aadiam`."""
    if not resource_id:
        return None
    parts = resource_id.split("/", 3)
    return parts[2].lower() if len(parts) > 2 and parts[1].lower() == "tenants" else None


def country_of(value: Any) -> str | None:
    """ISO country code, or None for names and blanks."""
    return value.upper() if isinstance(value, str) and len(value) == 2 and value.isalpha() else None
