"""One strict way to open a signed JWT, and one to make it; everything that reads or writes tokens goes through here.

Sources: RFC 7515, RFC 7519, RFC 8725 (best current practice): the verifier chooses the algorithms, the key comes from the issuer's set by `kid`,
never from the token, and the type is explicit.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any, Final

from joserfc import jwk, jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from msgspec import Struct

from aftergate.authz.errors import BadRequest
from aftergate.authz.strict_json import decode as decode_json
from aftergate.authz.tasks.answers import Refusal

ALGORITHMS: Final = (
    "ES256",
    "ES384",
    "ES512",
    "PS256",
    "PS384",
    "PS512",
    "RS256",
    "RS384",
    "RS512",
    "Ed25519",
    "EdDSA",
)  # no `none`, no HMAC
MAX_TOKEN: Final = 16_384
MAX_HEADER: Final = 2_048
RSA_BITS: Final = 2_048
Jwks = Mapping[str, Any]  # {"keys": [...]}, public keys only


class _Registry(jws.JWSRegistry):
    """Our algorithms, without the library's warning about the name `EdDSA`, which issuers have used since before RFC 9864."""

    max_header_length = MAX_HEADER

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(f"`{name}` is not accepted")
        return self.algorithms[name]


_REGISTRY: Final = _Registry(strict_check_header=False)


class Opened(Struct, frozen=True):
    """A token whose signature holds. `kid` is the key's, as its set names it."""

    header: dict[str, Any]
    claims: dict[str, Any]
    kid: str


def peek(token: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Header and claims of a compact JWS before anything about them is proved; None if it is none. Only to find out whose key to use."""
    if len(token) > MAX_TOKEN or token.count(".") != 2 or not token.isascii():
        return None
    head, payload, signature = token.split(".")
    if not signature:
        return None
    header, claims = _object(head), _object(payload)
    return None if header is None or claims is None else (header, claims)


def _object(part: str) -> dict[str, Any] | None:
    if "=" in part:
        return None
    try:
        held = decode_json(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (BadRequest, binascii.Error, ValueError):
        return None
    return held if isinstance(held, dict) else None


def open_signed(token: str, keys: Jwks, *, types: frozenset[str] | None, algorithms: tuple[str, ...] = ALGORITHMS) -> Opened | Refusal:
    """Check a token's form, type, algorithm and signature; times and claims are the caller's to check.

    `types` are the accepted `typ` values in lower case, with and without `application/`; None accepts a missing one or `JWT`.
    """
    seen = peek(token)
    if seen is None:
        return _no("not a signed JWT in compact form")
    header, claims = seen
    typ = header.get("typ")
    if types is None:
        if typ is not None and (not isinstance(typ, str) or typ.lower() not in {"jwt", "jose", "application/jwt"}):
            return _no("`typ` is that of another kind of token")
    elif not isinstance(typ, str) or typ.lower().removeprefix("application/") not in types:
        return _no("`typ` is that of another kind of token")
    if "crit" in header or "b64" in header:
        return _no("critical header parameters are not accepted")
    alg = header.get("alg")
    if alg not in algorithms or alg not in ALGORITHMS:
        return _no("the algorithm is not accepted")
    found = _key(keys, header.get("kid"), str(alg))
    if isinstance(found, Refusal):
        return found
    try:
        if found["kty"] == "RSA" and len(base64.urlsafe_b64decode(found["n"] + "==").lstrip(b"\0")) * 8 < RSA_BITS:
            return _no("the issuer's RSA key is too short")
        key = jwk.import_key({name: value for name, value in found.items() if name in _PUBLIC_MEMBERS})
        jws.deserialize_compact(token, key, registry=_REGISTRY)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        return _no(f"the signature does not hold: {type(error).__name__}")
    return Opened(header, claims, str(found.get("kid", "")))


_PUBLIC_MEMBERS: Final = frozenset({"kty", "crv", "x", "y", "n", "e"})
_TYPE_OF: Final = {"ES": "EC", "PS": "RSA", "RS": "RSA", "Ed": "OKP"}
_CURVE_OF: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "Ed25519": "Ed25519", "EdDSA": "Ed25519"}


def _key(keys: Jwks, kid: Any, alg: str) -> Mapping[str, Any] | Refusal:
    """The one key that fits. Without `kid` only where the set leaves no choice."""
    fits = [each for each in keys.get("keys", ()) if isinstance(each, Mapping) and _fits(each, alg)]
    if kid is not None:
        fits = [each for each in fits if each.get("kid") == kid]
    if not fits:
        return Refusal("invalid_token", "no key of the issuer fits the token")
    if len(fits) > 1:
        return Refusal("invalid_token", "more than one key of the issuer fits the token")
    return fits[0]


def _fits(key: Mapping[str, Any], alg: str) -> bool:
    operations = key.get("key_ops")
    return (
        key.get("kty") == _TYPE_OF[alg[:2]]
        and key.get("crv") == _CURVE_OF.get(alg)
        and key.get("alg") in {None, alg}
        and key.get("use") in {None, "sig", "jwt-svid"}
        and (operations is None or "verify" in operations)
    )


def sign(claims: Mapping[str, Any], typ: str, key: jwk.Key, alg: str, kid: str) -> str:
    """A compact JWS over JSON claims."""
    import msgspec

    return jws.serialize_compact({"typ": typ, "alg": alg, "kid": kid}, msgspec.json.encode(claims), key, registry=_REGISTRY)


def times(claims: Mapping[str, Any], now_ms: int, leeway_ms: int, *, need_iat: bool = False) -> Refusal | None:
    """None when `exp` lies ahead and `nbf`, `iat` do not, within `leeway_ms`. All are seconds, `exp` is required."""
    exp = seconds(claims.get("exp"))
    if exp is None:
        return _no("`exp` is missing or not a time")
    if now_ms >= exp * 1000 + leeway_ms:
        return Refusal("invalid_token", "it has expired")
    for name in ("nbf", "iat"):
        if name not in claims and not (need_iat and name == "iat"):
            continue
        value = seconds(claims.get(name))
        if value is None:
            return _no(f"`{name}` is missing or not a time")
        if value * 1000 > now_ms + leeway_ms:
            return Refusal("invalid_token", f"`{name}` lies in the future")
    return None


def seconds(value: Any) -> float | None:
    """A NumericDate that can be one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value < 1e11:
        return None
    return value


def audience(claims: Mapping[str, Any]) -> tuple[str, ...] | None:
    """`aud` as a tuple; None if it is missing or not of the form."""
    aud = claims.get("aud")
    if isinstance(aud, str):
        return (aud,) if aud else None
    if isinstance(aud, list) and aud and all(isinstance(each, str) and each for each in aud):
        return tuple(aud)
    return None


def _no(reason: str) -> Refusal:
    return Refusal("invalid_token", reason)
