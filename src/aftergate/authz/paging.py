"""Page tokens: opaque to callers, signed, and good only for the same search by the same caller (AuthZEN 1.0, Pagination)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from typing import Final

from aftergate.authz.errors import BadRequest

_MAC_BYTES: Final = 16
_FORM: Final = b"\x01"


def _mac(key: bytes, caller: str, search: bytes, position: bytes) -> bytes:
    made = hmac.new(key, digestmod=hashlib.sha256)
    for part in (b"aftergate search page", caller.encode(), search, position):
        made.update(struct.pack(">Q", len(part)))
        made.update(part)
    return made.digest()[:_MAC_BYTES]


def make_token(key: bytes, caller: str, search: bytes, after: str) -> str:
    """A token to go on after the candidate `after`. `search` is the request without its token, in canonical bytes."""
    position = after.encode()
    return base64.urlsafe_b64encode(_FORM + _mac(key, caller, search, position) + position).rstrip(b"=").decode()


def read_token(key: bytes, caller: str, search: bytes, token: str) -> str:
    """The candidate to go on after.

    Raises: BadRequest for a token that is forged, of another caller or server, or that comes with a changed request.
    """
    refused = BadRequest("page.token is not one that this search gave", where="page.token", hint="start again without a token")
    try:
        held = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise refused from None
    if len(held) < 1 + _MAC_BYTES or held[:1] != _FORM:
        raise refused
    mac, position = held[1 : 1 + _MAC_BYTES], held[1 + _MAC_BYTES :]
    if not hmac.compare_digest(mac, _mac(key, caller, search, position)):
        raise refused
    return position.decode()
