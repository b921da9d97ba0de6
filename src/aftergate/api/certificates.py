"""The client's certificate as a trusted proxy passes it on: PEM (URL-encoded or not) or base64 of DER."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from aftergate.api.auth import Refused, from_proxy, header
from aftergate.authz.transactions.binding import thumbprint

if TYPE_CHECKING:
    from aftergate.service.core import Core


def client_thumbprint(core: Core, scope: Any) -> str:
    """`x5t#S256` of the client's certificate; "" if there is none, or if the peer is no trusted proxy: then the header is anybody's words.

    Raises: Refused (400), for what is no certificate: a proxy that sends such a thing is set up wrongly.
    """
    name = core.settings.client_certificate_header
    if not name or not core.settings.trusted_proxies or not from_proxy(core, scope):
        return ""
    held = header(scope, name.encode())
    return thumbprint(_der(held)) if held else ""


def _der(held: str) -> bytes:
    """Raises: Refused (400)."""
    text = unquote(held).strip()
    try:
        if "-----BEGIN" in text:
            # Some proxies fold the lines of a PEM header into spaces.
            text = text.split("-----BEGIN CERTIFICATE-----", 1)[1].split("-----END CERTIFICATE-----", 1)[0]
        der = base64.b64decode("".join(text.strip(":").split()), validate=True)
        return x509.load_der_x509_certificate(der).public_bytes(Encoding.DER)
    except (ValueError, IndexError, binascii.Error):
        raise Refused(400, "the client certificate that the proxy passed on cannot be read") from None
