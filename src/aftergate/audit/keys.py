"""The log's public keys and when each was in use, as kept in `keys.json` beside the private key and in every export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from aftergate.audit.errors import BadNote
from aftergate.audit.notes import Verifier
from aftergate.errors import Reject
from aftergate.events.clock import from_iso, to_iso


class DatedKey(NamedTuple):
    """A key and its window in milliseconds; `until_ms` None: still in use."""

    verifier: Verifier
    from_ms: int
    until_ms: int | None = None

    def covers(self, at_ms: int) -> bool:
        return self.from_ms <= at_ms and (self.until_ms is None or at_ms <= self.until_ms)


class KeyRing(NamedTuple):
    origin: str
    keys: tuple[DatedKey, ...]

    @property
    def verifiers(self) -> list[Verifier]:
        return [k.verifier for k in self.keys]

    def find(self, verifier: Verifier) -> DatedKey | None:
        return next((k for k in self.keys if k.verifier == verifier), None)

    def encode(self) -> bytes:
        keys = [
            {"vkey": k.verifier.vkey, "not_before": to_iso(k.from_ms), "not_after": None if k.until_ms is None else to_iso(k.until_ms)}
            for k in self.keys
        ]
        return msgspec.json.format(msgspec.json.encode({"origin": self.origin, "keys": keys}), indent=1) + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> KeyRing:
        """Raises: BadNote, if malformed, or without a key of the origin's name."""
        try:
            raw = msgspec.json.decode(data)
            origin = raw["origin"]
            keys = tuple(_dated(k) for k in raw["keys"])
        except (msgspec.DecodeError, ValueError, RecursionError, KeyError, TypeError, AttributeError, Reject):
            raise BadNote("not a keys file", hint='it looks like {"origin": ..., "keys": [{"vkey", "not_before", "not_after"}]}') from None
        if not isinstance(origin, str) or not any(k.verifier.name == origin for k in keys):
            raise BadNote("a keys file without a key of its log")
        return cls(origin, keys)


def _dated(raw: dict[str, Any]) -> DatedKey:
    until = raw["not_after"]
    return DatedKey(Verifier.parse(raw["vkey"]), from_iso(raw["not_before"]), None if until is None else from_iso(until))


def pins(texts: Sequence[str]) -> list[Verifier]:
    """Verifier keys an auditor trusts, one a line; blank lines and `#` comments are skipped. Raises: BadNote."""
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return [Verifier.parse(line) for line in lines if line and not line.startswith("#")]
