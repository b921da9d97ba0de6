"""Canonical bytes and the digests built on them: the one place that says how a transaction is hashed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from aftergate.audit.errors import NotCanonical
from aftergate.audit.jcs import canonical
from aftergate.audit.merkle import Frontier, leaf_hash

__all__ = ["NotCanonical", "b64url", "canonical", "merkle_root", "transaction_digest", "unb64url", "without_act"]


def b64url(data: bytes) -> str:
    """base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64url(text: str) -> bytes:
    """The bytes of base64url text without padding; nothing but its alphabet is taken.

    Raises: ValueError.
    """
    if not text.isascii() or "=" in text or any(character in text for character in "+/ \t\r\n"):
        raise ValueError("not base64url")
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if b64url(data) != text:
        raise ValueError("not the shortest base64url form")  # two texts for one value would pass an equality test elsewhere
    return data


def without_act(subject: Mapping[str, Any]) -> dict[str, Any]:
    """The subject without `properties.act`: a PEP may move the actor to `client.actor` (ARAP, Binding Token Integrity)."""
    properties = subject.get("properties")
    if not isinstance(properties, Mapping) or "act" not in properties:
        return dict(subject)
    kept = {name: value for name, value in properties.items() if name != "act"}
    return {**subject, "properties": kept}


def transaction_digest(
    subject: Mapping[str, Any], resource: Mapping[str, Any], action: Mapping[str, Any], context: Mapping[str, Any]
) -> bytes:
    """SHA-256 of one exact action: who, what, on which object, with which parameters. `context` holds the bound members only."""
    return hashlib.sha256(canonical({"subject": without_act(subject), "resource": resource, "action": action, "context": context})).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root over an ordered list of leaf data.

    Raises: ValueError, if there is no leaf: an empty batch approves nothing.
    Source: RFC 6962, section 2.1 (leaf and node hashes are told apart by their first byte).
    """
    if not leaves:
        raise ValueError("a batch has at least one item")
    return Frontier.of(leaf_hash(leaf) for leaf in leaves).root()
