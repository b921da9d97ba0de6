"""The signed note that ties an access request to the denial it answers, and the proof that an executor holds the key an approval names.

Source: AuthZEN Access Request and Approval Profile, "Binding Token Integrity" (hashed form); RFC 9449; RFC 8705.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet
from joserfc.jws import JWSRegistry
from msgspec import Struct

from aftergate.authz import dpop
from aftergate.authz.transactions.canonical import NotCanonical, b64url, canonical, without_act
from aftergate.authz.transactions.objects import BOUND_CONTEXT, Asked, Executor

TYPE: Final = "authzen-binding+jwt"
ALGORITHMS: Final = ("ES256", "Ed25519", "RS256", "PS256")
MAX_TOKEN: Final = 16_384
Fault = Literal["not_requestable", "expired_denial", "invalid_denial_binding"]


class Binding(Struct, frozen=True):
    """The claims of a binding token. Times of the token are seconds since 1970, `denial_expires_at` RFC 3339."""

    iss: str
    aud: str
    iat: int
    exp: int
    jti: str
    denial_expires_at: str
    binding_context_members: list[str]
    binding_hash: str
    evaluation_id: str
    caller: str  # who got the denial
    policy_digest: str
    asked: Asked
    behind: list[str] = []  # names on whose behalf the denied request was made, as the server knew them
    session: str = ""  # of the denied request: what is submitted may leave it out, and findings on it count all the same
    credential: str = ""


class Refusal(Struct, frozen=True):
    """Why a request cannot be bound. `fault` is the last part of the profile's problem type."""

    fault: Fault
    detail: str


class _Registry(JWSRegistry):
    max_header_length = 2048


def binding_hash(
    subject: Mapping[str, Any], resource: Mapping[str, Any], action: Mapping[str, Any], context: Mapping[str, Any], members: Sequence[str]
) -> str:
    """base64url(SHA-256(JCS(...))) over the request, with the named members of the context.

    Raises: NotCanonical.
    """
    relevant = {name: context[name] for name in members if name in context}
    made = canonical({"subject": without_act(subject), "resource": resource, "action": action, "context": relevant})
    return b64url(hashlib.sha256(made).digest())


def mint(binding: Binding, key: Key, kid: str, algorithm: str) -> str:
    """The compact JWS of a binding."""
    header = {"typ": TYPE, "alg": algorithm, "kid": kid}
    return jwt.encode(header, msgspec.to_builtins(binding), key, algorithms=[algorithm], registry=_Registry(algorithms=[algorithm]))


def kid_of(token: str) -> str:
    """The key id that a token names, unverified, to look its key up; "" if it names none."""
    try:
        held = jws.extract_compact(token.encode()).headers().get("kid") if len(token) <= MAX_TOKEN else None
    except (JoseError, ValueError, TypeError):
        return ""
    return held if isinstance(held, str) else ""


def verify(token: str, keys: KeySet, *, iss: str, aud: str, now_ms: int) -> Binding | Refusal:
    """Steps 1, 2 and 5 of the profile: key and signature, audience, expiry. Step 3, whether `jti` came before, is the store's; step 4 is `matches`."""
    if len(token) > MAX_TOKEN or token.count(".") != 2:
        return Refusal("invalid_denial_binding", "the binding token is not a compact JWS")
    try:
        decoded = jwt.decode(token, keys, algorithms=list(ALGORITHMS), registry=_Registry(algorithms=list(ALGORITHMS)))
        if decoded.header.get("typ") != TYPE:
            return Refusal("invalid_denial_binding", "the token is of another type")
        binding = msgspec.convert(decoded.claims, Binding)
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        return Refusal("invalid_denial_binding", "the binding token does not verify")
    if binding.iss != iss or binding.aud != aud:
        return Refusal("invalid_denial_binding", "the binding token is of another server, or for one")
    if now_ms >= binding.exp * 1000:
        return Refusal("expired_denial", "the denial is too old to ask on: evaluate again")
    return binding


def matches(
    binding: Binding,
    *,
    subject: Mapping[str, Any],
    resource: Mapping[str, Any],
    action: Mapping[str, Any],
    context: Mapping[str, Any],
    denial: Mapping[str, Any],
) -> Refusal | None:
    """Step 4: the submission is what was denied, and its denial is the one the token was made for."""
    if any(name in context and name not in binding.binding_context_members for name in BOUND_CONTEXT):
        return Refusal("invalid_denial_binding", "the denied request held no such transaction")
    try:
        made = binding_hash(subject, resource, action, context, binding.binding_context_members)
    except NotCanonical as error:
        return Refusal("invalid_denial_binding", error.message)
    if not hmac.compare_digest(made, binding.binding_hash):
        return Refusal("invalid_denial_binding", "subject, resource, action or transaction are not those that were denied")
    if denial.get("expires_at") != binding.denial_expires_at:
        return Refusal("invalid_denial_binding", "`denial.expires_at` is not the denial's")
    if denial.get("evaluation_id") not in {None, binding.evaluation_id}:
        return Refusal("invalid_denial_binding", "`denial.evaluation_id` is another evaluation's")
    return None


class Presented(Struct, frozen=True):
    """How an approval is presented: the caller, and whatever shows that it holds a key."""

    caller: str
    method: str = "POST"
    urls: tuple[str, ...] = ()  # addresses a DPoP proof may be made for: the one that was called
    proof: str = ""  # the DPoP header, or `context.approval.proof`
    x5t: str = ""  # thumbprint of the client certificate, from a trusted proxy


class Held(Struct, frozen=True):
    """The executor holds its key. `once` must not have come before, until `until_ms`; empty where the transport proves freshness itself."""

    once: str = ""
    until_ms: int = 0


def holds_key(executor: Executor, presented: Presented, approval_id: str, now_ms: int) -> Held | str:
    """Whether who presents the approval holds the key it names; otherwise why not.

    The proof's `ath` is the hash of the approval's id, so that a proof made for one approval serves no other.
    """
    if executor.x5t:
        if presented.x5t and hmac.compare_digest(executor.x5t, presented.x5t):
            return Held()
        return "the approval names a client certificate, and this is not it" if presented.x5t else "no client certificate was presented"
    if not presented.proof:
        return "no proof of the executor's key was presented"
    refusal: dpop.Proof | dpop.Refusal = dpop.Refusal("invalid_dpop_proof", "no address")
    for url in presented.urls:
        refusal = dpop.verify_proof(presented.proof, presented.method, url, now_ms, ath=dpop.hash_of(approval_id))
        if isinstance(refusal, dpop.Proof):
            break
    if isinstance(refusal, dpop.Refusal):
        return refusal.detail
    if not hmac.compare_digest(refusal.jkt, executor.jkt):
        return "the proof is of another key"
    return Held(refusal.once, refusal.until_ms)


def thumbprint(certificate_der: bytes) -> str:
    """`x5t#S256` of a certificate (RFC 8705, section 3.1)."""
    return b64url(hashlib.sha256(certificate_der).digest())
