"""Reading records whose values may be of any type: nothing here raises anything but Reject or msgspec's own errors."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec

from aftergate.errors import Reject
from aftergate.events.clock import from_epoch, from_iso

T = TypeVar("T")
LONGEST: Final = 512  # characters of a free value that are kept
LARGEST: Final = 1 << 53


def decode(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw) -> T:
    """The record, typed.

    Raises: msgspec.DecodeError or ValidationError; Reject where msgspec lets other errors through (text that is not UTF-8, nesting
    beyond the interpreter's stack).
    """
    try:
        return decoder.decode(data)
    except UnicodeDecodeError:
        raise Reject("record is not UTF-8") from None
    except RecursionError:
        raise Reject("record is nested too deeply") from None


def text(value: Any) -> str | None:
    """A name or id as text; numbers are written out; empty, boolean and structured values are None."""
    if isinstance(value, str):
        return value[:LONGEST] or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def mail(value: Any) -> str | None:
    """A name as text, lower-case if it is an e-mail address: people's addresses join sources."""
    name = text(value)
    return name.lower() if name is not None and "@" in name else name


def number(value: Any) -> int | None:
    """A count, also where the log writes it as text. One beyond 2**53 is damage: no JSON reader keeps it exact."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST:
        return value
    return None


def items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def texts(value: Any) -> tuple[str, ...]:
    """The texts of a list, or of a single text."""
    return tuple(found for item in (value if isinstance(value, list) else [value]) if (found := text(item)) is not None)


def unique(values: Iterable[str | None], but: str | None = None) -> tuple[str, ...]:
    """The values in their order, without repeats, empty ones and `but`."""
    return tuple(dict.fromkeys(value for value in values if value and value != but))


def kept(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The values that say something, or None if none does."""
    return {key: value for key, value in values.items() if value is not None and value != "" and value != [] and value != ()} or None


def moment(*values: Any) -> int:
    """Milliseconds of the first value given.

    Raises: Reject, if all are missing or that one is no time.
    """
    found = moment_or_none(*values)
    if found is None:
        raise Reject("record has no time")
    return found


def moment_or_none(*values: Any) -> int | None:
    for value in values:
        if value is None or value == "":
            continue
        if isinstance(value, str):
            return number_time(value) if value.isascii() and value.isdigit() else from_iso(value)
        if isinstance(value, int | float):
            return from_epoch(value)
        raise Reject(f"time is a {type(value).__name__}")
    return None


def number_time(value: str) -> int:
    if len(value) > 18:
        raise Reject(f"time `{value[:40]}` is out of range")
    return from_epoch(int(value))


def content_id(line: bytes) -> str:
    """Id of a record that has none of its own: 32 hex digits of the SHA-256 of its bytes."""
    return hashlib.sha256(line.strip()).hexdigest()[:32]


INNER: Final = tuple(
    ipaddress.ip_network(net)
    for net in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


@lru_cache(maxsize=65_536)
def address(value: str) -> str | None:
    """The value in canonical form if it is an address, with a port or brackets taken off; else None."""
    name = value.strip()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    try:
        found = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


@lru_cache(maxsize=65_536)
def inner(value: str) -> bool:
    """True for an address that says nothing outside its own network. Documentation ranges are not: samples use them as public."""
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        return False
    return any(found in net for net in INNER if net.version == found.version)
