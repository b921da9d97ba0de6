"""OAuth's endpoints: token exchange, introspection, revocation, metadata, keys. They ask for the client's credentials themselves and answer in OAuth's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from litestar import MediaType, Request, Response, get, post
from litestar.openapi.spec import OpenAPIType, Operation, Schema

from aftergate.api.auth import OWN, PUBLIC, Refused
from aftergate.api.openapi import reads
from aftergate.api.presenting import FORM, form_of, known, oauth_error, presented, refused_as_oauth
from aftergate.authz.dpop import ALGORITHMS as DPOP_ALGORITHMS
from aftergate.authz.tasks.answers import Refusal
from aftergate.authz.tasks.jose import ALGORITHMS
from aftergate.authz.tasks.keys import ALGORITHM
from aftergate.authz.tasks.proofs import JWT_BEARER, JWT_SPIFFE
from aftergate.service.tasks import Asking, Presented
from aftergate.service.tasks.exchange import CLIENT_CREDENTIALS, GRANT
from aftergate.service.tasks.exchange import Refused as NotIssued
from aftergate.stores.errors import StoreUnavailable

INTROSPECTION_JWT: Final = "application/token-introspection+jwt"
JWKS: Final = "application/jwk-set+json"
Answer = Response[Any]


def _form(required: tuple[str, ...], *names: str) -> type[Operation]:
    """A form's parameters in the OpenAPI document. Beside them go the ways in which a client proves itself (RFC 6749, RFC 7523)."""
    every = (*required, *names, "client_id", "client_secret", "client_assertion", "client_assertion_type")
    return reads(
        {FORM: Schema(type=OpenAPIType.OBJECT, required=list(required), properties=dict.fromkeys(every, Schema(type=OpenAPIType.STRING)))}
    )


_EXCHANGE: Final = (
    "subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type", "resource", "audience", "scope",
    "authorization_details", "task_id", "requested_ttl_s",
)  # fmt: skip


def _form_route(
    core: Any, request: Request[Any, Any, Any], body: bytes, work: Callable[[Asking, Presented, int], Answer], scopes: frozenset[str]
) -> Answer:
    """Read the form, see who asks and that they may, and answer; every no in OAuth's form."""
    try:
        form = form_of(request, body)
        if isinstance(form, Refusal):
            return oauth_error(form.error, form.reason)
        shown = presented(core, request, form)
        asking = known(core, request, shown)
        if isinstance(asking, Refusal):
            return oauth_error(asking.error, asking.reason)
        if not asking.scopes & scopes:
            return oauth_error("unauthorized_client", f"this client lacks the scope {' or '.join(sorted(scopes))}", status=403)
        return work(asking, shown, core.clock())
    except Refused as error:
        return refused_as_oauth(error)
    except StoreUnavailable:
        return oauth_error(
            "temporarily_unavailable", "nothing can be recorded or looked up at present", status=503, headers={"retry-after": "2"}
        )


@post(
    "/oauth/token",
    opt={"scope": OWN},
    status_code=200,
    sync_to_thread=True,
    tags=["Tokens"],
    operation_class=_form(("grant_type",), *_EXCHANGE),
)
def token(core: Any, request: Request[Any, Any, Any], body: bytes) -> Answer:
    """A token for a task: RFC 8693 exchange, or client_credentials for a workload acting for itself.

    Form: `grant_type`, `subject_token`, `subject_token_type`, `actor_token`, `actor_token_type`, `requested_token_type`, `resource`, `audience`,
    `scope`, `authorization_details` (RFC 9396), and `task_id`. The token is bound to the key of the `DPoP` proof or to the client certificate.
    """

    def work(asking: Asking, shown: Presented, now_ms: int) -> Answer:
        made = core.tasks.exchange(asking, shown, now_ms)
        if isinstance(made, NotIssued):
            headers = {"www-authenticate": made.challenge} if made.challenge else {}
            more: dict[str, Any] = {"access_request": dict(made.access_request)} if made.access_request is not None else {}
            return oauth_error(made.error, made.reason, headers=headers, **more)
        answer: dict[str, Any] = {
            "access_token": made.token, "issued_token_type": made.issued_type, "token_type": made.token_type, "expires_in": made.expires_in,
            "scope": made.scope,
        }  # fmt: skip
        if made.details:
            answer["authorization_details"] = [dict(detail) for detail in made.details]
        if shown.one("grant_type") == CLIENT_CREDENTIALS:
            del answer["issued_token_type"]
        return Response(answer, headers={"pragma": "no-cache"})

    return _form_route(core, request, body, work, frozenset({"tasks"}))


@post(
    "/oauth/introspect",
    opt={"scope": OWN},
    status_code=200,
    sync_to_thread=True,
    tags=["Tokens"],
    operation_class=_form(("token",), "token_type_hint"),
)
def introspect(core: Any, request: Request[Any, Any, Any], body: bytes) -> Answer:
    """Is a token alive, and what does it say (RFC 7662). With `Accept: application/token-introspection+jwt` the answer is signed (RFC 9701)."""

    def work(asking: Asking, shown: Presented, now_ms: int) -> Answer:
        held = shown.one("token")
        if not held:
            return oauth_error("invalid_request", "`token` is missing")
        answer = core.tasks.introspect(asking, held, now_ms)
        if INTROSPECTION_JWT in request.headers.get("accept", ""):
            return Response(core.tasks.introspection_jwt(asking, answer, now_ms), media_type=INTROSPECTION_JWT)
        return Response(answer, media_type=MediaType.JSON)

    return _form_route(core, request, body, work, frozenset({"tasks", "decide", "admin"}))


@post(
    "/oauth/revoke",
    opt={"scope": OWN},
    status_code=200,
    sync_to_thread=True,
    media_type=MediaType.TEXT,
    tags=["Tokens"],
    operation_class=_form(("token",), "token_type_hint"),
)
def revoke(core: Any, request: Request[Any, Any, Any], body: bytes) -> Answer:
    """End a token and all that were derived from it (RFC 7009). The answer is the same whether there was one or not."""

    def work(asking: Asking, shown: Presented, now_ms: int) -> Answer:
        held = shown.one("token")
        if not held:
            return oauth_error("invalid_request", "`token` is missing")
        core.tasks.revoke(asking, held, now_ms)
        return Response(b"", media_type=MediaType.TEXT)

    return _form_route(core, request, body, work, frozenset({"tasks", "admin"}))


@get("/oauth/jwks", opt={"scope": PUBLIC}, sync_to_thread=False, media_type=JWKS, tags=["Tokens"])
def jwks(core: Any) -> Answer:
    """The public keys: those that sign tokens (next, current and retiring), and those of approvals. Keep them no longer than the header says."""
    return Response(core.tasks.jwks(core.clock()), headers={"cache-control": "public, max-age=300"}, media_type=JWKS)


@get("/.well-known/oauth-authorization-server", opt={"scope": PUBLIC}, sync_to_thread=False, tags=["Tokens"])
def metadata(core: Any) -> dict[str, Any]:
    """RFC 8414."""
    url = core.url
    methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
    made: dict[str, Any] = {
        "issuer": url,
        "token_endpoint": url + "/oauth/token",
        "introspection_endpoint": url + "/oauth/introspect",
        "revocation_endpoint": url + "/oauth/revoke",
        "jwks_uri": url + "/oauth/jwks",
        "response_types_supported": [],
        "grant_types_supported": [GRANT, CLIENT_CREDENTIALS],
        "authorization_details_types_supported": sorted(core.tasks.known.types),
        "dpop_signing_alg_values_supported": list(DPOP_ALGORITHMS),
        "introspection_signing_alg_values_supported": [ALGORITHM],
        "client_assertion_types_supported": [JWT_BEARER, *([JWT_SPIFFE] if core.tasks.known.bundles else [])],
        "tls_client_certificate_bound_access_tokens": bool(core.settings.trusted_proxies),
    }
    for endpoint in ("token", "introspection", "revocation"):
        made[f"{endpoint}_endpoint_auth_methods_supported"] = methods
        made[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] = list(ALGORITHMS)
    return made


@get("/.well-known/oauth-protected-resource", opt={"scope": PUBLIC}, sync_to_thread=False, tags=["Tokens"])
def protected_resource(core: Any) -> dict[str, Any]:
    """RFC 9728, for `/v1/tasks`, which takes this server's own tokens to make tasks under tasks."""
    return {
        "resource": core.url,
        "authorization_servers": [core.url],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": list(DPOP_ALGORITHMS),
        "authorization_details_types_supported": sorted(core.tasks.known.types),
        "tls_client_certificate_bound_access_tokens": bool(core.settings.trusted_proxies),
    }


ROUTES = [token, introspect, revoke, jwks, metadata, protected_resource]
