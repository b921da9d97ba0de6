"""The tokens of a task: RFC 9068 access tokens and transaction tokens, made and checked.

Each kind has its own `typ`, and each verifier takes exactly one: an ID token, a security event or a transaction token never passes as an access
token, nor the other way round.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.grants import Grant, act_claim
from aftergate.authz.tasks.jose import Jwks, audience, open_signed, sign, times
from aftergate.authz.tasks.keys import ALGORITHM, SigningKey

ACCESS_TYP: Final = "at+jwt"
TXN_TYP: Final = "txntoken+jwt"
INTROSPECTION_TYP: Final = "token-introspection+jwt"
TXN_DRAFT: Final = "draft-ietf-oauth-transaction-tokens-10"  # the revision that claims and parameters are of
TYPE_URN: Final = "urn:ietf:params:oauth:token-type:"
ACCESS_TOKEN: Final = TYPE_URN + "access_token"
JWT: Final = TYPE_URN + "jwt"
ID_TOKEN: Final = TYPE_URN + "id_token"
TXN_TOKEN: Final = TYPE_URN + "txn_token"
SELF_SIGNED: Final = TYPE_URN + "self_signed"
LEEWAY_MS: Final = 30_000
MAX_CONTEXT: Final = 4_096

_REQUIRED: Final = ("iss", "sub", "client_id", "jti")


class Verified(Struct, frozen=True):
    """A token whose form, signature, issuer, audience and times hold. Whether it is still alive is the store's to say."""

    claims: dict[str, Any]
    kid: str


def access_claims(grant: Grant, issuer: str, jti: str) -> dict[str, Any]:
    """Claims of an RFC 9068 access token for a grant; `task` is ours, so that a resource server can ask about it."""
    act = act_claim(grant.act)
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": grant.subject.id,
        "sub_type": grant.subject.type,
        "aud": grant.audience[0] if len(grant.audience) == 1 else list(grant.audience),
        "client_id": grant.client.id,
        "iat": grant.iat_ms // 1000,
        "exp": grant.exp_ms // 1000,
        "jti": jti,
        "scope": " ".join(sorted(grant.scope)),
        "authorization_details": [dict(detail) for detail in grant.details],
        "task": grant.task,
    }
    if grant.binding:
        claims["cnf"] = grant.binding.cnf()
    if act is not None:
        claims["act"] = act
    _known(claims, grant)
    return claims


def _known(claims: dict[str, Any], grant: Grant) -> None:
    if grant.acr:
        claims["acr"] = grant.acr
    if grant.amr:
        claims["amr"] = list(grant.amr)
    if grant.auth_time is not None:
        claims["auth_time"] = grant.auth_time


def txn_claims(
    grant: Grant,
    issuer: str,
    jti: str,
    *,
    trust_domain: str,
    txn: str,
    requester: tuple[str, ...],
    tctx: Mapping[str, Any],
    rctx: Mapping[str, Any],
) -> dict[str, Any]:
    """Claims of a transaction token. `requester` is the chain of requesting workloads, oldest first; `txn` stays the same along the call chain."""
    claims: dict[str, Any] = {
        "iss": issuer,
        "iat": grant.iat_ms // 1000,
        "aud": trust_domain,
        "exp": grant.exp_ms // 1000,
        "txn": txn,
        "sub": grant.subject.id,
        "sub_type": grant.subject.type,
        "scope": " ".join(sorted(grant.scope)),
        "req_wl": requester[0] if len(requester) == 1 else list(requester),
        "jti": jti,
        "task": grant.task,
    }
    if tctx:
        claims["tctx"] = dict(tctx)
    if rctx:
        claims["rctx"] = dict(rctx)
    return claims


def issue(claims: Mapping[str, Any], typ: str, key: SigningKey) -> str:
    """Sign. Raises: ValueError, for a key held without its secret."""
    from joserfc import jwk

    if key.private is None:
        raise ValueError("this key is held without its secret part")
    return sign(claims, typ, jwk.import_key(dict(key.private)), ALGORITHM, key.kid)


def verify_access(
    token: str, keys: Jwks, issuer: str, now_ms: int, *, for_audience: str | None = None, leeway_ms: int = LEEWAY_MS
) -> Verified | Refusal:
    """Check an RFC 9068 access token (section 4). `for_audience` None leaves the audience to the caller, as introspection must."""
    opened = open_signed(token, keys, types=frozenset({ACCESS_TYP}))
    if isinstance(opened, Refusal):
        return opened
    claims = opened.claims
    for name in _REQUIRED:
        if not isinstance(claims.get(name), str) or not claims[name]:
            return Refusal("invalid_token", f"`{name}` is missing")
    if claims["iss"] != issuer:
        return Refusal("invalid_token", "another issuer")
    aud = audience(claims)
    if aud is None:
        return Refusal("invalid_token", "`aud` is missing")
    if for_audience is not None and for_audience not in aud:
        return Refusal("invalid_token", "the token is for another audience")
    late = times(claims, now_ms, leeway_ms, need_iat=True)
    return Verified(claims, opened.kid) if late is None else late


def verify_txn(token: str, keys: Jwks, trust_domain: str, now_ms: int, *, leeway_ms: int = LEEWAY_MS) -> Verified | Refusal:
    """Check a transaction token for its trust domain, which must be its only audience."""
    opened = open_signed(token, keys, types=frozenset({TXN_TYP}))
    if isinstance(opened, Refusal):
        return opened
    claims = opened.claims
    for name in ("txn", "sub", "scope", "aud"):
        if not isinstance(claims.get(name), str):
            return Refusal("invalid_token", f"`{name}` is missing")
    wl = claims.get("req_wl")
    if not (isinstance(wl, str) and wl) and not (isinstance(wl, list) and wl and all(isinstance(each, str) and each for each in wl)):
        return Refusal("invalid_token", "`req_wl` is missing")
    for name in ("tctx", "rctx"):
        if name in claims and not isinstance(claims[name], dict):
            return Refusal("invalid_token", f"`{name}` is not an object")
    if claims["aud"] != trust_domain:
        return Refusal("invalid_token", "the token is for another trust domain")
    late = times(claims, now_ms, leeway_ms, need_iat=True)
    return Verified(claims, opened.kid) if late is None else late


def replacement_chain(claims: Mapping[str, Any], requester: str) -> tuple[str, ...]:
    """`req_wl` of a token made from another transaction token: the earlier requesters, and the new one behind them."""
    held = claims.get("req_wl")
    earlier = [held] if isinstance(held, str) else [each for each in held or [] if isinstance(each, str)]
    return (*earlier, requester)


def introspection(claims: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What an active token's introspection says (RFC 7662 section 2.2): its claims, and how it is presented."""
    shown = {name: value for name, value in claims.items() if name not in {"active", "token_type"}}
    return {"active": True, "token_type": kind, **shown}


def hash_b64(value: bytes) -> str:
    """base64url(SHA-256(value)) without padding: `ath`, `x5t#S256`."""
    return urlsafe_b64encode(hashlib.sha256(value).digest()).rstrip(b"=").decode()
