"""The subject token of an exchange: whose it is, and whether it holds. Ours by our own keys and state, others by their issuer's keys."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from aftergate.authz.tasks import grants as g
from aftergate.authz.tasks import proofs as p
from aftergate.authz.tasks import tokens as t
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.jose import peek
from aftergate.authz.tasks.machine import Principal
from aftergate.service.tasks.asking import Asking, Presented, issued, prove

if TYPE_CHECKING:
    from aftergate.service.tasks import Tasks

SUBJECT_TYPES: Final = frozenset({t.ACCESS_TOKEN, t.JWT, t.ID_TOKEN, t.TXN_TOKEN, t.SELF_SIGNED})


class Shown(Struct, frozen=True):
    """A subject token that holds: what it says, the token of ours that it is, or the keyed hash of the foreign one."""

    subject: g.Subject
    parent: bytes | None = None
    family: bytes | None = None
    claims: Mapping[str, Any] = {}


def subject_of(tasks: Tasks, asking: Asking, presented: Presented, now_ms: int) -> Shown | Refusal:
    token, kind = presented.one("subject_token"), presented.one("subject_token_type")
    if not token or not kind:
        return Refusal("invalid_request", "subject_token and subject_token_type are required")
    if kind not in SUBJECT_TYPES:
        return Refusal("invalid_request", "this subject_token_type is not accepted")
    seen = peek(token)
    if seen is None:
        return Refusal("invalid_request", "the subject token is not a signed JWT")
    header, claims = seen
    if claims.get("iss") == tasks.core.url or kind == t.TXN_TOKEN:
        return _own(tasks, token, kind, header, now_ms)
    if kind == t.SELF_SIGNED or claims.get("iss") == asking.client:
        found = prove(tasks, token, claims, now_ms)
        if isinstance(found, Refusal) or found.principal != asking.principal:
            return Refusal("invalid_request", "the self-signed subject token is not the client's")
        # What the client signs about itself proves who it is and nothing more: it neither widens nor bounds.
        subject = g.Subject(principal=found.principal, issuer=asking.client, exp_ms=int(found.claims["exp"] * 1000))
        return Shown(subject, family=family_of(tasks, asking.client, found.claims, token))
    return _foreign(tasks, token, kind, claims, now_ms)


def _own(tasks: Tasks, token: str, kind: str, header: Mapping[str, Any], now_ms: int) -> Shown | Refusal:
    keys = tasks.signing.for_kid(header.get("kid"), now_ms)
    if kind == t.TXN_TOKEN:
        found = t.verify_txn(token, keys, tasks.known.trust_domain, now_ms)
    elif kind in {t.ACCESS_TOKEN, t.JWT}:
        found = t.verify_access(token, keys, tasks.core.url, now_ms)
    else:
        return Refusal("invalid_request", "the subject token is not of the type that it is said to be")
    if isinstance(found, Refusal):
        return Refusal("invalid_request", f"subject token: {found.reason}")
    if tasks.death_of(found.claims, now_ms) is not None:
        return Refusal("invalid_request", "the subject token is dead")
    subject = g.subject_of(
        found.claims, Principal(str(found.claims.get("sub_type", "")), str(found.claims["sub"])), tasks.known.types, own=True
    )
    if isinstance(subject, Refusal):
        return subject
    return Shown(subject, parent=tasks.digest(str(found.claims.get("jti", ""))), claims=found.claims)


def _foreign(tasks: Tasks, token: str, kind: str, claims: Mapping[str, Any], now_ms: int) -> Shown | Refusal:
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or issuer not in tasks.known.issuers:
        if isinstance(claims.get("sub"), str) and str(claims["sub"]).startswith("spiffe://"):
            workload = prove(tasks, token, dict(claims), now_ms)
            if isinstance(workload, Refusal):
                return Refusal("invalid_request", f"subject token: {workload.reason}")
            made = g.Subject(principal=workload.principal, issuer="spiffe", exp_ms=int(workload.claims["exp"] * 1000))
            return Shown(made, family=family_of(tasks, "spiffe", workload.claims, token))
        return Refusal("invalid_request", "the subject token's issuer is not known here")
    types = p.ACCESS if kind == t.ACCESS_TOKEN else None
    found = issued(tasks, token, issuer, now_ms, types=types)
    if isinstance(found, Refusal) and kind == t.JWT:
        found = issued(tasks, token, issuer, now_ms, types=p.ACCESS)
    if isinstance(found, Refusal):
        return Refusal("invalid_request", f"subject token: {found.reason}")
    known = tasks.known.issuers[issuer]
    subject = g.subject_of(found.claims, found.principal, tasks.known.types, own=False)
    if isinstance(subject, Refusal):
        return subject
    if not known.scope_bounds:
        subject = msgspec.structs.replace(subject, scope=None)
    return Shown(subject, family=family_of(tasks, issuer, found.claims, token), claims=found.claims)


def family_of(tasks: Tasks, issuer: str, claims: Mapping[str, Any], token: str) -> bytes:
    """What a foreign subject token is known by: a keyed hash of issuer and `jti`, or of the token where it has none."""
    jti = claims.get("jti")
    text = f"{issuer}\0{jti}" if isinstance(jti, str) and jti else f"{issuer}\0token\0{token}"
    return hmac.digest(tasks.core.pepper, b"subject token\0" + text.encode(), "sha256")


def as_workload(tasks: Tasks, token: str, asking: Asking, now_ms: int) -> Principal | None:
    seen = peek(token)
    if seen is None:
        return None
    found = prove(tasks, token, seen[1], now_ms)
    return found.principal if not isinstance(found, Refusal) and found.principal == asking.principal else None
