"""Proof of possession: the holder of a key signs each request.

Source: RFC 9449, section 4.3. Replay (step 12, `jti` seen before) is the store's to say: `Proof.jti` with `Proof.jkt` is what may come once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from typing import Any, Final

from joserfc import jwk, jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from msgspec import Struct

ALGORITHMS: Final = ("ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
MAX_PROOF: Final = 8192
MAX_JTI: Final = 256
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?[^#]*)?(?:#.*)?\Z", re.DOTALL)
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PORTS: Final = {"https": "443", "http": "80"}


class _Registry(jws.JWSRegistry):
    """Our algorithms; without the library's warning about the name `EdDSA`, which clients of RFC 9449 have used since before RFC 9864."""

    max_header_length = MAX_PROOF  # an RSA key in the header is longer than the library's 512 bytes

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(f"`{name}` is not accepted")
        return self.algorithms[name]


class Proof(Struct, frozen=True):
    """A proof that holds. `until_ms` is when it could no longer be accepted: how long its `jti` must be remembered."""

    jkt: str
    jti: str
    iat: int
    until_ms: int
    nonce: str = ""

    @property
    def once(self) -> str:
        """What may come once: the same `jti` of another key is another proof."""
        return f"{self.jkt}\0{self.jti}"


class Refusal(Struct, frozen=True):
    """Why a proof does not hold. `error` is the OAuth error code."""

    error: str
    detail: str


def verify_proof(
    proof: str | bytes,
    method: str,
    url: str,
    now_ms: int,
    *,
    ath: str | None = None,
    nonce: str | None = None,
    leeway_s: int = 60,
) -> Proof | Refusal:
    """Check one DPoP proof for a request to `url` with `method`.

    `ath` is what must be hashed in the claim of that name: base64url(SHA-256(token)), or None where no token goes with the request. `nonce` is
    the one this server demanded, if it did. `leeway_s` bounds `iat` on both sides. Several `DPoP` headers are for the caller to refuse (step 1).
    """
    text = proof.decode("ascii", "replace") if isinstance(proof, bytes) else proof
    # 2. A single, well-formed JWT.
    if len(text) > MAX_PROOF or text.count(".") != 2 or not text.isascii():
        return _no("not one compact JWT")
    head, payload, _ = text.split(".")
    header, claims = _object(head), _object(payload)
    if header is None or claims is None:
        return _no("the header or the claims are not a JSON object with unique names")
    # 4 and 5. Its type and an asymmetric algorithm that we take; nothing critical that we would not understand.
    if header.get("typ") != "dpop+jwt":
        return _no("`typ` is not `dpop+jwt`")
    if header.get("alg") not in ALGORITHMS:
        return _no("the algorithm is not accepted")
    if "crit" in header or "b64" in header:
        return _no("critical header parameters are not accepted")
    # 7. The key is there, and public.
    key_data = header.get("jwk")
    if not isinstance(key_data, dict) or PRIVATE & key_data.keys():
        return _no("`jwk` is missing or not a public key")
    # 3. All required claims, of their types.
    jti, iat = claims.get("jti"), claims.get("iat")
    if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI:
        return _no("`jti` is missing or too long")
    if isinstance(iat, bool) or not isinstance(iat, (int, float)) or not -1e12 < iat < 1e12:
        return _no("`iat` is not a time")
    # 6. The signature, with that very key.
    try:
        key = jwk.import_key(key_data)
        if isinstance(key, jwk.RSAKey) and key.public_key.key_size < 2048:
            return _no("the RSA key is too short")
        jws.deserialize_compact(text, key, registry=_Registry())
        jkt = key.thumbprint()
    except (JoseError, ValueError, TypeError, KeyError, binascii.Error, UnicodeError) as error:
        return _no(f"the signature or the key does not hold: {type(error).__name__}")
    # 8 and 9. Method and address, without query and fragment, normalised (RFC 3986, sections 6.2.2 and 6.2.3).
    if claims.get("htm") != method:
        return _no("`htm` is another method")
    htu = claims.get("htu")
    wanted = normal_url(url)
    if not isinstance(htu, str) or wanted is None or normal_url(htu) != wanted:
        return _no("`htu` is another address")
    # 10. The nonce this server demanded.
    if nonce is not None and not _same(claims.get("nonce"), nonce):
        return Refusal("use_dpop_nonce", "`nonce` is not the one given out last")
    # 11. Made now.
    if abs(now_ms - iat * 1000) > leeway_s * 1000:
        return _no("`iat` is too far from now")
    # 12. For this token.
    if ath is not None and not _same(claims.get("ath"), ath):
        return _no("`ath` is not this token's hash")
    return Proof(jkt, jti, int(iat), int(iat * 1000) + leeway_s * 1000 + 1, str(claims.get("nonce") or ""))


def hash_of(token: str) -> str:
    """The value of `ath` for a token (RFC 9449, section 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


def normal_url(url: str) -> str | None:
    """Scheme, host, port and path as they are compared; None if it is no absolute address or carries a user's name."""
    found = _URL.match(url)
    if found is None or len(url) > 2048:
        return None
    scheme, authority, path = found["scheme"].lower(), found["authority"].lower(), found["path"]
    if not authority or "@" in authority:
        return None
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:  # no port, or a bare IPv6 address
        host, port = authority, ""
    if not host or (port and not port.isdigit()):
        return None
    if port and port != _PORTS.get(scheme):
        host = f"{host}:{int(port)}"
    return f"{scheme}://{host}{_ESCAPE.sub(_unescaped, path) or '/'}"


def _unescaped(found: re.Match[str]) -> str:
    """An escape of an unreserved character is that character; others are written in upper case."""
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else f"%{found[1].upper()}"


def _object(part: str) -> dict[str, Any] | None:
    try:
        held = json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    return held if isinstance(held, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name given twice")
    return made


def _same(given: Any, wanted: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _no(detail: str) -> Refusal:
    return Refusal("invalid_dpop_proof", detail)
