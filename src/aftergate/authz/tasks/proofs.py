"""Who is asking: workloads by SPIFFE JWT-SVID, CI jobs by their OIDC token, clients by private_key_jwt, people by a subject token.

Every check is against keys that the caller of these functions got from the right place: the bundle of the trust domain, the issuer's JWKS, the
client's registered set. One time use of assertions is the store's; each `Proved` says what may come once and until when it must be remembered.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from msgspec import Struct

from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.jose import ALGORITHMS, Jwks, audience, open_signed, peek, seconds, times
from aftergate.authz.tasks.machine import Principal

LEEWAY_MS: Final = 30_000
MAX_ASSERTION_MS: Final = 300_000
SVID_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")  # 04, 4.3
JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_SPIFFE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._-]+)+")


class Proved(Struct, frozen=True, kw_only=True):
    """Somebody who proved who they are. `once` (hex) is what may come only once, or empty; `until_ms` is how long to remember it."""

    principal: Principal
    how: str
    claims: dict[str, Any]
    once: str = ""
    until_ms: int = 0
    client: str = ""  # the registered client that this is, where there is one


class SpiffeId(Struct, frozen=True):
    """A workload's id (04, 4.1), compared byte for byte."""

    text: str
    domain: str


def spiffe_id(text: str) -> SpiffeId | Refusal:
    """Parse strictly: the library's parser takes other spellings of scheme and domain, and two spellings of one id are two names for a policy."""
    if len(text.encode()) > 2048 or not text.startswith("spiffe://"):
        return Refusal("invalid_client", "`sub` is not a SPIFFE id")
    domain, slash, path = text.removeprefix("spiffe://").partition("/")
    if not _DOMAIN.fullmatch(domain):
        return Refusal("invalid_client", "the trust domain is not well-formed")
    if not slash:
        return Refusal("invalid_client", "the id names a trust domain, not a workload")
    if not _PATH.fullmatch("/" + path) or any(segment in {".", ".."} for segment in path.split("/")):
        return Refusal("invalid_client", "the path of the SPIFFE id is not well-formed")
    return SpiffeId(text, domain)


def bundle_keys(bundle: Mapping[str, Any]) -> Jwks:
    """The keys of a trust bundle that verify JWT-SVIDs (04, 4.4): `use` is `jwt-svid` and there is a `kid`; every other key is ignored."""
    held = bundle.get("keys")
    keys = held if isinstance(held, list) else []
    return {
        "keys": [
            key for key in keys if isinstance(key, dict) and key.get("use") == "jwt-svid" and isinstance(key.get("kid"), str) and key["kid"]
        ]
    }


def verify_jwt_svid(token: str, bundles: Mapping[str, Mapping[str, Any]], accepted: frozenset[str], now_ms: int) -> Proved | Refusal:
    """Check a JWT-SVID (04, 4.3). `bundles` maps a trust domain to its bundle; `accepted` are this server's audiences, one of which must be there."""
    seen = peek(token)
    if seen is None:
        return _no("not a signed JWT in compact form")
    header, claims = seen
    if set(header) - {"alg", "kid", "typ"}:
        return _no("a JWT-SVID's header has `alg`, `kid` and `typ` only")
    if header.get("typ") not in {None, "JWT", "JOSE"}:
        return _no("`typ` is not that of a JWT-SVID")
    if not isinstance(header.get("kid"), str) or not header["kid"]:
        return _no("`kid` is missing")
    sub = claims.get("sub")
    if not isinstance(sub, str):
        return _no("`sub` is missing")
    workload = spiffe_id(sub)
    if isinstance(workload, Refusal):
        return workload
    bundle = bundles.get(workload.domain)
    if bundle is None:
        return _no("no bundle of that trust domain is held")
    opened = open_signed(token, bundle_keys(bundle), types=None, algorithms=SVID_ALGORITHMS)
    if isinstance(opened, Refusal):
        return _no(opened.reason)
    wrong = _aimed(claims, accepted) or times(claims, now_ms, LEEWAY_MS)
    if wrong is not None:
        return _no(wrong.reason)
    return Proved(principal=Principal("workload", sub), how="jwt_svid", claims=opened.claims)


class Issuer(Struct, frozen=True, kw_only=True):
    """An issuer whose tokens are accepted, and how its subjects are named here."""

    issuer: str
    audience: frozenset[str]
    entity_type: str = "user"  # type of its subjects in policies
    id_claim: str = "sub"
    prefix: str = ""  # put before the id, so that subjects of two issuers never meet under one name
    scope_bounds: bool = True  # false: its scopes are in another language than tasks' actions, and say nothing about them
    algorithms: tuple[str, ...] = ALGORITHMS
    client_id: str = ""  # `azp` or `client_id` that its tokens must name, where given


ACCESS: Final = frozenset({"at+jwt"})


def verify_issued(token: str, issuer: Issuer, keys: Jwks, now_ms: int, *, types: frozenset[str] | None) -> Proved | Refusal:
    """Check a token of a named OIDC issuer: signature, `iss`, `aud`, times, subject. `types` as in `open_signed`: `ACCESS` for RFC 9068 tokens."""
    opened = open_signed(token, keys, types=types, algorithms=issuer.algorithms)
    if isinstance(opened, Refusal):
        return opened
    claims = opened.claims
    if claims.get("iss") != issuer.issuer:
        return Refusal("invalid_token", "another issuer")
    wrong = _aimed(claims, issuer.audience) or times(claims, now_ms, LEEWAY_MS)
    if wrong is not None:
        return wrong
    if issuer.client_id and issuer.client_id not in {claims.get("azp"), claims.get("client_id")}:
        return Refusal("invalid_token", "the token was issued to another client")
    if "events" in claims or "toe" in claims:
        return Refusal("invalid_token", "a security event is no token")
    subject = claims.get(issuer.id_claim)
    if not isinstance(subject, str) or not 0 < len(subject) <= 512:
        return Refusal("invalid_token", f"`{issuer.id_claim}` is missing")
    return Proved(principal=Principal(issuer.entity_type, issuer.prefix + subject), how="oidc", claims=claims)


def meets(claims: Mapping[str, Any], conditions: Mapping[str, Any]) -> Refusal | None:
    """None when every condition holds. A condition is a value, a pattern with `*`, or a list of which one must hold; a missing claim meets nothing."""
    if not conditions:
        return _no("no condition is set, so nobody meets them")
    for name, wanted in conditions.items():
        held = claims.get(name)
        if not any(_meets(held, each) for each in (wanted if isinstance(wanted, list) else [wanted])):
            return _no(f"the claim `{name}` is not as the client's entry says")
    return None


def _meets(held: Any, wanted: Any) -> bool:
    if isinstance(held, str) and isinstance(wanted, str):
        return fnmatchcase(held, wanted) if "*" in wanted else held == wanted
    return held is not None and type(held) is type(wanted) and bool(held == wanted)


def verify_client_assertion(assertion: str, client_id: str, keys: Jwks, accepted: frozenset[str], now_ms: int) -> Proved | Refusal:
    """Check a private_key_jwt (RFC 7523 section 3, OpenID Connect Core section 9): the client signs for itself, for us, for a short time, once."""
    opened = open_signed(assertion, keys, types=None)
    if isinstance(opened, Refusal):
        typed = open_signed(assertion, keys, types=frozenset({"client-authentication+jwt"}))
        if isinstance(typed, Refusal):
            return _no(opened.reason)
        opened = typed
    claims = opened.claims
    if claims.get("iss") != client_id or claims.get("sub") != client_id:
        return _no("`iss` and `sub` must both be the client's id")
    wrong = _aimed(claims, accepted) or times(claims, now_ms, LEEWAY_MS)
    if wrong is not None:
        return _no(wrong.reason)
    exp_ms = int((seconds(claims["exp"]) or 0) * 1000)
    if exp_ms > now_ms + MAX_ASSERTION_MS + LEEWAY_MS:
        return _no("the assertion lives longer than five minutes")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= 256:
        return _no("`jti` is missing")
    once = hashlib.sha256(f"client-assertion\0{client_id}\0{jti}".encode()).hexdigest()
    return Proved(
        principal=Principal("workload", client_id),
        how="private_key_jwt",
        claims=claims,
        once=once,
        until_ms=exp_ms + LEEWAY_MS,
        client=client_id,
    )


def _aimed(claims: Mapping[str, Any], accepted: frozenset[str]) -> Refusal | None:
    aud = audience(claims)
    if aud is None or not accepted.intersection(aud):
        return Refusal("invalid_token", "`aud` does not name this server")
    return None


def _no(reason: str) -> Refusal:
    return Refusal("invalid_client", reason)
