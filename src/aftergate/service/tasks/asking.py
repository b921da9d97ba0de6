"""Who stands before the token endpoint or asks for a task: proved by an API key, a client assertion, a JWT-SVID, a CI token or a task's own token.

Whatever may come only once (an assertion, a DPoP proof) is used up here, before anything is answered: of two racing uses exactly one goes on.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

import msgspec
from msgspec import Struct

from aftergate.audit.records import Actor
from aftergate.authz import dpop
from aftergate.authz.tasks import proofs as p
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.grants import Binding, binding_of
from aftergate.authz.tasks.jose import audience, peek
from aftergate.authz.tasks.machine import Principal
from aftergate.service.tasks.issuers import IssuerUnavailable
from aftergate.stores.used import first_use

if TYPE_CHECKING:
    from aftergate.service.tasks import Tasks

NOBODY: Final = Refusal("invalid_client", "no client authentication was given")
_VERIFIER_SCOPES: Final = frozenset({"decide", "admin"})


class Presented(Struct, frozen=True):
    """What came with a request beside its body. `x5t` is the client certificate's thumbprint, from a trusted proxy; `form` is empty for JSON."""

    method: str
    url: str
    authorization: str = ""
    dpop: tuple[str, ...] = ()
    x5t: str = ""
    form: dict[str, tuple[str, ...]] = {}
    request_id: str = ""
    spend: bool = True  # false: the proof is used up by what follows (an approval's consumption), not by asking

    def one(self, name: str) -> str:
        """A form parameter's only value, or "". Several values are refused before."""
        held = self.form.get(name, ())
        return held[0] if held else ""


class Asking(Struct, frozen=True, kw_only=True):
    """A client that proved who it is."""

    principal: Principal
    how: str
    client: str  # its id in OAuth
    scopes: frozenset[str] = frozenset({"tasks"})
    binding: Binding = Binding()
    audience: frozenset[str] = frozenset()  # resources that it is
    claims: dict[str, Any] = {}
    task: str = ""  # the task whose token it showed
    caller: str = ""  # its id as the rest of the server knows callers

    @property
    def admin(self) -> bool:
        return "admin" in self.scopes

    @property
    def verifies(self) -> bool:
        """Whether it may ask about any token: a decision point's own callers are believed."""
        return bool(self.scopes & _VERIFIER_SCOPES)

    def actor(self) -> Actor:
        return Actor("api-key" if self.how == "api_key" else "client", self.caller or self.client)


def proof_of(tasks: Tasks, presented: Presented, now_ms: int, *, token: str = "") -> Binding | Refusal:
    """The key that came with a request: a DPoP proof, used up here, or a client certificate. Empty if there is neither.

    `token` is the access token that goes with the proof (`ath`).
    Raises: StoreUnavailable.
    """
    if len(presented.dpop) > 1:
        return Refusal("invalid_dpop_proof", "more than one DPoP header")
    if not presented.dpop:
        return Binding(x5t=presented.x5t)
    found = dpop.verify_proof(presented.dpop[0], presented.method, presented.url, now_ms, ath=dpop.hash_of(token) if token else None)
    if isinstance(found, dpop.Refusal):
        return Refusal(found.error, found.detail)
    if presented.spend:
        with tasks.core.db.write() as connection:
            if not first_use(tasks.core.db, connection, "dpop", found.once, found.until_ms):
                return Refusal("invalid_dpop_proof", "the proof was used before")
    return Binding(jkt=found.jkt)


def authenticate(tasks: Tasks, presented: Presented, now_ms: int) -> Asking | Refusal:
    """Who asks, at OAuth's endpoints and at /v1/tasks alike. Two ways of authentication at once are refused (RFC 6749 section 2.3).

    Raises: StoreUnavailable.
    """
    scheme, _, credential = presented.authorization.partition(" ")
    credential = credential.strip()
    assertion = presented.one("client_assertion")
    secret = presented.one("client_secret")
    if sum(map(bool, (presented.authorization, assertion, secret))) > 1:
        return Refusal("invalid_request", "more than one client authentication")
    if assertion:
        return _asserted(tasks, presented, assertion, now_ms)
    if secret:
        return _with_secret(tasks, presented, presented.one("client_id"), secret, now_ms)
    if not presented.authorization:
        return NOBODY
    kind = scheme.lower()
    if kind == "basic":
        pair = _basic(credential)
        if pair is None:
            return Refusal("invalid_client", "the Basic credentials are not well-formed")
        return _with_secret(tasks, presented, *pair, now_ms)
    if kind == "bearer":
        return _bearer(tasks, presented, credential, now_ms)
    if kind == "dpop":
        return _task_token(tasks, presented, credential, now_ms, scheme=kind)
    return Refusal("invalid_client", "this kind of authorization is not known here")


def _basic(credential: str) -> tuple[str, str] | None:
    """Client id and secret, form-encoded within (RFC 6749 section 2.3.1)."""
    try:
        text = base64.b64decode(credential, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    name, colon, secret = text.partition(":")
    return (unquote_plus(name), unquote_plus(secret)) if colon else None


def _with_secret(tasks: Tasks, presented: Presented, client_id: str, secret: str, now_ms: int) -> Asking | Refusal:
    """An API key as client secret; the client id is the key's id or name."""
    found = _key(tasks, secret, now_ms)
    if found is None or client_id not in {found.caller, found.client}:
        return Refusal("invalid_client", "the client or its secret is not known")
    return _bound(tasks, presented, found, now_ms)


def _key(tasks: Tasks, secret: str, now_ms: int) -> Asking | None:
    key = tasks.core.keys.find(secret, now_ms)
    if key is None:
        return None
    name = key.name or key.id
    return Asking(principal=Principal("workload", name), how="api_key", client=name, scopes=key.scopes, caller=key.id)


def _bound(tasks: Tasks, presented: Presented, asking: Asking, now_ms: int) -> Asking | Refusal:
    binding = proof_of(tasks, presented, now_ms)
    return binding if isinstance(binding, Refusal) else msgspec.structs.replace(asking, binding=binding)


def _bearer(tasks: Tasks, presented: Presented, credential: str, now_ms: int) -> Asking | Refusal:
    found = _key(tasks, credential, now_ms)
    if found is not None:
        return _bound(tasks, presented, found, now_ms)
    seen = peek(credential)
    if seen is None:
        return Refusal("invalid_client", "the key or token is not known")
    if seen[1].get("iss") == tasks.core.url:
        return _task_token(tasks, presented, credential, now_ms, scheme="bearer")
    return _jwt(tasks, presented, credential, seen[1], now_ms)


def _asserted(tasks: Tasks, presented: Presented, assertion: str, now_ms: int) -> Asking | Refusal:
    """`client_assertion` (RFC 7521 section 4.2): private_key_jwt or a CI token as jwt-bearer, a JWT-SVID as jwt-spiffe."""
    kind = presented.one("client_assertion_type")
    if kind not in {p.JWT_BEARER, p.JWT_SPIFFE}:
        return Refusal("invalid_client", "this client_assertion_type is not known here")
    seen = peek(assertion)
    if seen is None:
        return Refusal("invalid_client", "the assertion is not a signed JWT")
    if (kind == p.JWT_SPIFFE) != _is_svid(seen[1]):
        return Refusal("invalid_client", "the assertion is not of the type that it is said to be")
    return _jwt(tasks, presented, assertion, seen[1], now_ms)


def _is_svid(claims: dict[str, Any]) -> bool:
    sub = claims.get("sub")
    return isinstance(sub, str) and sub.startswith("spiffe://")


def _jwt(tasks: Tasks, presented: Presented, token: str, claims: dict[str, Any], now_ms: int) -> Asking | Refusal:
    found = prove(tasks, token, claims, now_ms)
    if isinstance(found, Refusal):
        return found
    if found.once:
        with tasks.core.db.write() as connection:
            if not first_use(tasks.core.db, connection, "assertion", found.once, found.until_ms):
                return Refusal("invalid_client", "the assertion was used before")
    client = found.client or found.principal.id
    named = presented.one("client_id")
    if named and named != client:
        return Refusal("invalid_client", "client_id names another client than the assertion")
    entry = tasks.known.clients.get(client)
    return _bound(
        tasks,
        presented,
        Asking(
            principal=found.principal,
            how=found.how,
            client=client,
            audience=entry.audience if entry is not None else frozenset(),
            claims=found.claims,
            caller=client,
        ),
        now_ms,
    )


def prove(tasks: Tasks, token: str, claims: dict[str, Any], now_ms: int) -> p.Proved | Refusal:
    """Which workload signed, or had signed for it, this token. Nothing in `claims` is believed before the signature holds."""
    accepted = frozenset({tasks.core.url, tasks.core.url + "/oauth/token"})
    if _is_svid(claims):
        return p.verify_jwt_svid(token, tasks.bundles.current(), accepted, now_ms)
    issuer = claims.get("iss")
    client = tasks.known.clients.get(issuer) if isinstance(issuer, str) else None
    if client is not None and client.jwks is not None:
        return p.verify_client_assertion(token, client.id, client.jwks, accepted, now_ms)
    if isinstance(issuer, str) and issuer in tasks.known.issuers:
        return _ci(tasks, token, issuer, now_ms)
    return Refusal("invalid_client", "nobody known here signed this token")


def _ci(tasks: Tasks, token: str, issuer: str, now_ms: int) -> p.Proved | Refusal:
    """A CI job by its OIDC token: the one registered client whose conditions its claims meet."""
    found = issued(tasks, token, issuer, now_ms, types=None)
    if isinstance(found, Refusal):
        return Refusal("invalid_client", found.reason)
    fits = [client for client in tasks.known.of_issuer(issuer) if p.meets(found.claims, client.claims) is None]
    if len(fits) != 1:
        return Refusal("invalid_client", "no client's conditions are met" if not fits else "the conditions of more than one client are met")
    return p.Proved(principal=Principal("workload", fits[0].id), how="oidc", claims=found.claims, client=fits[0].id)


def issued(tasks: Tasks, token: str, issuer: str, now_ms: int, *, types: frozenset[str] | None) -> p.Proved | Refusal:
    """A token of a named issuer, checked with the issuer's keys as they are now."""
    seen = peek(token)
    kid = seen[0].get("kid") if seen is not None else None
    try:
        keys = tasks.issuer_keys.keys(issuer, kid if isinstance(kid, str) else None)
    except IssuerUnavailable as error:
        return Refusal("invalid_token", error.message)
    return p.verify_issued(token, tasks.known.issuers[issuer], keys, now_ms, types=types)


def _task_token(tasks: Tasks, presented: Presented, token: str, now_ms: int, *, scheme: str) -> Asking | Refusal:
    """A task's own token, as for a task under it: live, and shown with the key it is bound to (RFC 9449 section 7.1, RFC 8705 section 3)."""
    found = tasks.verified(token, now_ms)
    if isinstance(found, Refusal):
        return Refusal("invalid_client", found.reason)
    if tasks.core.url not in (audience(found.claims) or ()):
        return Refusal("invalid_client", "the token is for another audience")
    bound = binding_of(found.claims)
    if isinstance(bound, Refusal):
        return Refusal("invalid_client", bound.reason)
    if (bound.kind == "dpop") != (scheme == "dpop"):
        return Refusal("invalid_client", "a bound token is sent with the DPoP scheme and its proof, and only a bound one")
    shown = proof_of(tasks, presented, now_ms, token=token if scheme == "dpop" else "")
    if isinstance(shown, Refusal):
        return shown
    if shown.jkt != bound.jkt or (bound.x5t and shown.x5t != bound.x5t):
        return Refusal("invalid_client", "the token is bound to another key")
    dead = tasks.death_of(found.claims, now_ms)
    if dead is not None:
        return Refusal("invalid_client", "the token is dead")
    client = str(found.claims["client_id"])
    return Asking(
        principal=Principal("workload", client),
        how="task_token",
        client=client,
        binding=shown,
        claims=found.claims,
        task=str(found.claims["task"]),
    )
