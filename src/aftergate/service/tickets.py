"""What a browser carries through one ceremony, sealed: nobody can read, change, forge or prolong it, and none is needed twice."""

from __future__ import annotations

import hmac
import secrets
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aftergate.authz.transactions.canonical import b64url, unb64url

NONCE: Final = 12
LONGEST: Final = 4096


class Tickets:
    """Seals small JSON objects under a key of this installation (AES-256-GCM), each for one kind of ceremony and a short time."""

    def __init__(self, pepper: bytes) -> None:
        self._box = AESGCM(hmac.digest(pepper, b"ceremony ticket", "sha256"))

    def seal(self, kind: str, held: dict[str, Any], until_ms: int) -> str:
        nonce = secrets.token_bytes(NONCE)
        return b64url(nonce + self._box.encrypt(nonce, msgspec.json.encode({**held, "until_ms": until_ms}), kind.encode()))

    def open(self, kind: str, ticket: str, now_ms: int) -> dict[str, Any] | None:
        """What was sealed, or None: not ours, of another kind, or too old."""
        if not ticket or len(ticket) > LONGEST:
            return None
        try:
            data = unb64url(ticket)
            held: dict[str, Any] = msgspec.json.decode(self._box.decrypt(data[:NONCE], data[NONCE:], kind.encode()))
        except (ValueError, InvalidTag):
            return None
        return held if held["until_ms"] > now_ms else None
